"""From PEFT's weights, module by module, to a graph's inputs, layer by layer: packed, scaled, folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from basert.errors import ExportError
from basert.manifest import Lora, LoraLayer
from export.lora.peft_folder import Change, PeftAdapter
from export.passes.folds import Folds

HEADS = ("lm_head", "embed_tokens", "wte", "embed_in", "embed_out")

Array = np.ndarray[Any, Any]


def factors_of(adapter: PeftAdapter, base: str, lora: Lora, folds: Folds) -> dict[str, Array]:
    """The arrays of an adapter's bundle, see basert.adapter.

    base: its name, for messages. Raises ExportError when the adapter was trained on another model.
    """
    _check(adapter, base, lora)
    arrays: dict[str, Array] = {}
    for layer in lora.layers:
        if any(module.name in adapter.changes for module in layer.modules):
            a, b = _packed(layer, adapter.changes, units_of(adapter, lora) * lora.unit)
            a, b = folds.apply(layer.name, a, b)
            parts = a.reshape(layer.inputs, -1, lora.unit).transpose(1, 0, 2)
            arrays |= {f"{layer.name}.a": np.ascontiguousarray(parts), f"{layer.name}.b": b}
    return arrays


def units_of(adapter: PeftAdapter, lora: Lora) -> int:
    """A power of two of them has room for its ranks."""
    return 1 << (-(-adapter.rank // lora.unit) - 1).bit_length()


def _packed(layer: LoraLayer, changes: Mapping[str, Change], ranks: int) -> tuple[Array, Array]:
    """a [in, parts * ranks] and b [parts * ranks, out]: each module has `ranks` of them, and its outputs."""
    a = np.zeros((layer.inputs, layer.parts * ranks), np.float32)
    b = np.zeros((layer.parts * ranks, layer.outputs), np.float32)
    at = 0
    for number, module in enumerate(layer.modules):
        if change := changes.get(module.name):
            own = slice(number * ranks, number * ranks + len(change.a))
            a[:, own] = change.a.T
            b[own, at : at + module.outputs] = change.scale * change.b.T
        at += module.outputs
    return a, b


def _check(adapter: PeftAdapter, base: str, lora: Lora) -> None:
    shapes = {
        module.name: (layer.inputs, module.outputs) for layer in lora.layers for module in layer.modules
    }
    for name, change in adapter.changes.items():
        part = name.rpartition(".")[2]
        if part in HEADS:
            raise ExportError(
                f"{adapter.folder} changes {part}, and basert's adapters change neither head nor embedding; "
                "train it without, or merge it into its base and export that."
            )
        if name not in shapes:
            raise ExportError(
                f"{adapter.folder} changes {name}, which is no layer of {base} that takes adapters (such as"
                f" {next(iter(shapes))}); name the base that it was trained on with --base."
            )
        shape = change.a.shape[1], change.b.shape[0]
        if shape != shapes[name]:
            raise ExportError(
                f"{adapter.folder} was trained on another model, where {name} is {_shape(shape)}, and"
                f" {_shape(shapes[name])} in {base}; name the base that it was trained on with --base."
            )


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
