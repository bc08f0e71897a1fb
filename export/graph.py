"""OnnxFromCheckpoint: a Hugging Face checkpoint folder becomes the fp32 slot graph.

inputs   input_ids[batch, chunk] i64, seqlens_k[batch] i32, total_seq[] i32, logits_idx[rows] i64,
         past_key_values.{i}.key/.value [batch, kv_heads, max_len, head_dim]
outputs  next_token[rows] i64, logits[rows, vocab] f32, present.{i}.key/.value (bound to the past's address)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import onnx_ir as ir

from basert.errors import ExportError
from basert.manifest import KVCache, Tensor, write_json
from export.checkpoint import read_config
from export.families import recipe_for
from export.passes.activations import fuse_silu
from export.passes.constants import fold_sums
from export.passes.folds import FOLDS, folds_of, read_folds
from export.passes.head import tie_head
from export.passes.outputs import answer_tokens
from export.passes.rope import set_positions
from export.passes.rows import gather_rows
from export.passes.scale import scale_embedding
from export.passes.slots import static_slots
from export.positions import longest_context, read_positions
from export.skeleton import embedding_scale

GRAPH = "decoder.onnx"
DATA = f"{GRAPH}.data"
DECODER = "decoder.json"
SHORTEST = 64  # tokens of context that parity and golden cases need


class Decoder(msgspec.Struct, frozen=True):
    """What the other export steps and the manifest need to know of a slot graph."""

    architecture: str  # "LlamaForCausalLM"
    model_type: str  # "llama"
    exporter: str  # "mobius-onnx 0.1.0"
    vocab_size: int
    max_context: int  # rows of the rope tables: longest prompt + answer
    window: int | None  # the narrowest sliding window, in tokens
    kv_cache: KVCache
    inputs: list[Tensor]  # of the slot graph, as the manifest wants them
    outputs: list[Tensor]


def decoder_from_checkpoint(checkpoint: Path, out: Path, *, max_context: int | None = None) -> Decoder:
    """Write the fp32 slot graph (GRAPH, DATA, DECODER) into folder `out` and describe it.

    max_context None: what the checkpoint was trained for. Raises ExportError for an unknown architecture, for
    missing or truncated weights, and for a max_context beyond the checkpoint's.
    """
    config = read_config(checkpoint)
    recipe = recipe_for(checkpoint)
    length = context_length(max_context, longest_context(config))
    positions = read_positions(config, length)
    model = recipe.build(checkpoint)
    fold_sums(model)
    static_slots(model)
    set_positions(model, positions)
    scale_embedding(model, embedding_scale(config))
    fuse_silu(model)
    tie_head(model)
    gather_rows(model)
    answer_tokens(model)
    windows = [layer.window for layer in positions.layers if layer.window]
    decoder = Decoder(
        architecture=(config.architectures or [type(config).__name__])[0],
        model_type=config.model_type,
        exporter=recipe.exporter,
        vocab_size=int(next(value for value in model.graph.outputs if value.name == "logits").shape[-1]),
        max_context=length,
        window=min(windows) if windows else None,
        kv_cache=kv_cache(model),
        inputs=tensors(model.graph.inputs),
        outputs=tensors(model.graph.outputs),
    )
    save(model, decoder, out)
    return decoder


def describe(model: ir.Model, decoder: Decoder) -> Decoder:
    """`decoder` with the inputs, outputs and cache of a graph that a pass has changed."""
    return msgspec.structs.replace(
        decoder,
        kv_cache=kv_cache(model),
        inputs=tensors(model.graph.inputs),
        outputs=tensors(model.graph.outputs),
    )


def save(model: ir.Model, decoder: Decoder, folder: Path) -> None:
    """Write graph, weights, description, and what was folded into it; nothing in them names this machine."""
    save_graph(model, folder / GRAPH)
    write_json(folder / DECODER, decoder)
    folds_of(model.graph).save(folder / FOLDS)


def load(folder: Path) -> tuple[ir.Model, Decoder]:
    """What `save` left in `folder`."""
    model = ir.load(folder / GRAPH)
    model.graph.meta[FOLDS] = read_folds(folder / FOLDS)
    return model, read_decoder(folder)


def save_graph(model: ir.Model, path: Path) -> None:
    """The graph is called as its file is; its weights lie beside it in <path>.data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model.graph.name = path.stem
    for node in model.graph:
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=1024)


def read_decoder(folder: Path) -> Decoder:
    """The description that `save` left in `folder`."""
    return msgspec.json.decode((folder / DECODER).read_bytes(), type=Decoder)


def context_length(asked: int | None, longest: int) -> int:
    """What was asked for, or the longest there is. Raises ExportError when it is out of bounds."""
    if longest < SHORTEST:
        raise ExportError(f"A context of {longest} tokens is too short; basert exports {SHORTEST} and more.")
    if asked is not None and not SHORTEST <= asked <= longest:
        raise ExportError(
            f"A max context of {asked} is not possible; this model allows {SHORTEST} to {longest}."
        )
    return asked or longest


def kv_cache(model: ir.Model) -> KVCache:
    keys = [value for value in model.graph.inputs if re.fullmatch(r"past_key_values\.\d+\.key", value.name)]
    return KVCache(
        dtype=str(keys[0].dtype.numpy()),
        kv_heads=[int(k.shape[1]) for k in keys],
        head_dim=[int(k.shape[3]) for k in keys],
    )


def tensors(values: Iterable[ir.Value]) -> list[Tensor]:
    """As the manifest wants a graph's inputs or outputs."""
    return [_tensor(value) for value in values]


def _tensor(value: ir.Value) -> Tensor:
    shape = [int(size) if isinstance(size, int) else str(size.value) for size in value.shape]
    return Tensor(name=value.name, dtype=str(value.dtype.numpy()), shape=shape)
