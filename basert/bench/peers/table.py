"""The table of peers, by the names that the command line knows."""

from __future__ import annotations

from basert.bench.peers.encoders import (
    FastEmbed,
    OnnxRuntime,
    SentenceTransformers,
    SentenceTransformersBfloat16,
)
from basert.bench.peers.infinity import Infinity, InfinityBfloat16
from basert.bench.peers.llama_cpp import LlamaCpp, LlamaCppDrafting
from basert.bench.peers.openvino import OpenVino
from basert.bench.peers.peer import Peer
from basert.bench.peers.vllm import Vllm

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        LlamaCpp,
        LlamaCppDrafting,
        OpenVino,
        Vllm,
        Infinity,
        InfinityBfloat16,
        FastEmbed,
        SentenceTransformers,
        SentenceTransformersBfloat16,
        OnnxRuntime,
    )
}
