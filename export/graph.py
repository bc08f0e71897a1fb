"""OnnxFromCheckpoint: a Hugging Face checkpoint folder becomes the fp32 slot graph."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.manifest import KVCache, Tensor

GRAPH = "decoder.onnx"  # its weights lie beside it in decoder.onnx.data
DECODER = "decoder.json"


class Decoder(msgspec.Struct, frozen=True):
    """What the other export steps and the manifest need to know of a slot graph."""

    architecture: str  # "LlamaForCausalLM"
    model_type: str  # "llama"
    exporter: str  # "mobius-onnx 0.1.0"
    vocab_size: int
    max_context: int  # rows of the rope tables: longest prompt + answer
    kv_cache: KVCache
    inputs: list[Tensor]  # of the slot graph, as the manifest wants them
    outputs: list[Tensor]


def decoder_from_checkpoint(checkpoint: Path, out: Path, *, max_context: int | None = None) -> Decoder:
    """Write the fp32 slot graph (GRAPH, its data, DECODER) into folder `out` and describe it.

    max_context None: what the checkpoint was trained for. Raises ExportError for an unknown architecture, for
    missing or truncated weights, and for a max_context beyond the checkpoint's.
    """
    raise NotImplementedError


def read_decoder(folder: Path) -> Decoder:
    """The description that decoder_from_checkpoint or build_variant left in `folder`."""
    raise NotImplementedError
