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
    units = -(-adapter.rank // lora.unit)
    arrays: dict[str, Array] = {}
    for layer in lora.layers:
        if any(module.name in adapter.changes for module in layer.modules):
            a, b = _packed(layer, adapter.changes, units, lora.unit)
            for unit in range(units):
                a[unit], b[unit] = folds.apply(layer.name, a[unit], b[unit])
            arrays |= {f"{layer.name}.a": a, f"{layer.name}.b": b}
    return arrays


def _packed(layer: LoraLayer, changes: Mapping[str, Change], units: int, unit: int) -> tuple[Array, Array]:
    """a [units, in, width] and b [units, width, out]: each module has `unit` ranks of a unit, and its own
    outputs."""
    width = unit * len(layer.modules)
    a = np.zeros((units, layer.inputs, width), np.float32)
    b = np.zeros((units, width, layer.outputs), np.float32)
    at = 0
    for number, module in enumerate(layer.modules):
        change = changes.get(module.name)
        for first in range(0, len(change.a) if change else 0, unit):
            assert change is not None
            ranks = slice(first, min(first + unit, len(change.a)))
            place = slice(number * unit, number * unit + ranks.stop - first)
            a[first // unit, :, place] = change.a[ranks].T
            b[first // unit, place, at : at + module.outputs] = change.scale * change.b[:, ranks].T
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
