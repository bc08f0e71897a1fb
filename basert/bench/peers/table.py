"""The tables of peers and of workloads, by the names that the command line knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basert.bench.peers import encoding, transcribing, trials
from basert.bench.peers.basert_itself import BasertOnCpu
from basert.bench.peers.encoders import (
    FastEmbed,
    OnnxRuntime,
    SentenceTransformers,
    SentenceTransformersBfloat16,
)
from basert.bench.peers.faster_whisper import (
    FasterWhisper,
    FasterWhisperFloat32,
    FasterWhisperFloat32Workers,
    FasterWhisperPlain,
    FasterWhisperWorkers,
)
from basert.bench.peers.infinity import Infinity, InfinityBfloat16
from basert.bench.peers.llama_cpp import LlamaCpp, LlamaCppDrafting
from basert.bench.peers.openvino import OpenVino
from basert.bench.peers.peer import Peer
from basert.bench.peers.trial import Trial
from basert.bench.peers.vllm import Vllm
from basert.bench.peers.whisper_cpp import WhisperCpp, WhisperCppEightBits

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        LlamaCpp,
        LlamaCppDrafting,
        OpenVino,
        Vllm,
        BasertOnCpu,
        Infinity,
        InfinityBfloat16,
        FastEmbed,
        SentenceTransformers,
        SentenceTransformersBfloat16,
        OnnxRuntime,
        FasterWhisper,
        FasterWhisperWorkers,
        FasterWhisperPlain,
        FasterWhisperFloat32,
        FasterWhisperFloat32Workers,
        WhisperCpp,
        WhisperCppEightBits,
    )
}
TRIALS: dict[str, Mapping[str, Trial[Any]]] = {
    "decoder": trials.TRIALS,
    "encoder": encoding.TRIALS,
    "speech": transcribing.TRIALS,
}  # by family


def peers_of(family: str) -> list[str]:
    return [name for name, peer in PEERS.items() if peer.family == family]
