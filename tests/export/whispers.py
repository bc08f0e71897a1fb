"""Small Whispers with random weights, and CTranslate2's files of one."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken

from basert.manifest import read_manifest, write_json
from export.graph import DECODER, Decoder
from export.speech.graph import LISTENER, Listener
from export.speech.runner import HearingRunner, ListenerRunner
from tests.tiny import tiny_tokenizer

TIMESTAMPS = 1501
FRAMES = 60


def write_whisper(folder: Path, *, told: Mapping[str, Any] | None = None, **settings: Any) -> Path:
    """A checkpoint of two encoder layers and one decoder layer unless `settings` say otherwise.

    told: what generation_config.json says besides; None: nothing but the end of text.
    """
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    tokenizer = tiny_tokenizer()
    names = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    end = tokenizer.token_to_id("<|endoftext|>")
    shape: dict[str, Any] = {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_source_positions": FRAMES,
        "max_target_positions": 128,
        "init_std": 0.15,
        **settings,
    }
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size() + TIMESTAMPS,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
        suppress_tokens=[-1],
        begin_suppress_tokens=[7, end],
        **shape,
    )
    model = WhisperForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # which would be zero
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end, **(told or {})}))
    return folder


def write_ctranslate2(folder: Path, variables: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """model.bin with these variables; a first one of them has an alias, as the head is the embedding's."""
    kinds = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}
    parts = [struct.pack("<I", 6), _name("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, array in variables.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        parts += [_name(name), shape, struct.pack("<BI", kinds[array.dtype], array.nbytes), array.tobytes()]
    parts += [struct.pack("<I", 1), _name("decoder/projection/weight"), _name(next(iter(variables)))]
    (folder / "model.bin").write_bytes(b"".join(parts))


def _name(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def opened(bundle: Path, work: Path, slots: int = 1) -> tuple[ListenerRunner, HearingRunner]:
    """A bundle's graphs for the CPU, by nothing but what its manifest says; `work`: an empty folder."""
    manifest = read_manifest(bundle)
    graphs = {graph.role: graph for graph in manifest.graphs if graph.target == "cpu"}
    for path in (bundle / "graphs").iterdir():
        (work / path.name).symlink_to(path)
    assert manifest.speech is not None
    heard, said = graphs["listener"], graphs["decoder"]
    write_json(work / LISTENER, Listener(manifest.speech, heard.inputs, heard.outputs))
    sizes = manifest.vocab_size, manifest.max_context, None
    decoder = Decoder("", "", "", *sizes, manifest.kv_cache, said.inputs, said.outputs)
    write_json(work / DECODER, decoder)
    listener = ListenerRunner(work, threads=1, graph=Path(heard.path).name)
    return listener, HearingRunner(work, slots=slots, max_context=manifest.max_context, threads=1)


def spoken(
    listener: ListenerRunner, runner: HearingRunner, features: Any, prompt: list[int], end: int
) -> list[int]:
    """What the graphs write greedily behind a prompt, nothing being suppressed, up to the end of text."""
    runner.hear(0, listener.listen(features[None]))
    ids = list(prompt)
    logits = runner.chunk(0, ids, 0, rows=[len(ids) - 1])[0]
    while len(ids) < 60 and (token := int(logits.argmax())) != end:
        ids.append(token)
        logits = runner.decode([token], [len(ids) - 1])[0]
    return ids[len(prompt) :]
