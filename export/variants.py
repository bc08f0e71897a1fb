"""The table of variants: what makes fp32, w8a8 and int4 of the fp32 slot graph.

Milliseconds of SmolLM2-135M on two cores of an AVX2 CPU without VNNI, context 256 (prefill: 512 tokens):

              decode 1 row   8 rows   32 rows   prefill
    fp32          31           40       103       747
    w8a8          11           23        82       590
    int4           7           26        96       961
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from basert.errors import ExportError
from basert.progress import Show
from export.calibration import Activations, read_calibration
from export.graph import Decoder, describe, load, save
from export.passes.blocks import quantise_blocks
from export.passes.cache import round_cache
from export.passes.quantise import quantise
from export.passes.rotate import rotate
from export.passes.search import least_error
from export.passes.smooth import for_rounded_weights, smooth

Array = np.ndarray[Any, Any]

VARIANTS = ("fp32", "w8a8", "int4")
ROTATED = {"w8a8"}
"""Variants that are made of the graph with its residual stream turned: what rounds activations coarsely."""

CACHE_BITS = ("auto", "8", "32")


def choose_cache_bits(asked: str, variant: str) -> int:
    """Bits of a number in the KV cache. `auto`: 8, but for fp32, which stands for the checkpoint itself."""
    if asked not in CACHE_BITS:
        raise ExportError(f"A KV cache has no {asked!r} bits; choose {', '.join(CACHE_BITS)}.")
    if variant == "fp32" and asked == "8":
        raise ExportError("A KV cache of 8 bits is not exact, as fp32 is; choose another --variant with it.")
    if asked == "auto":
        return 32 if variant == "fp32" else 8
    return int(asked)


def needs_calibration(variant: str) -> bool:
    return variant in _PASSES


def build_rotated(slot_graph: Path, out: Path) -> None:
    """Write the fp32 slot graph with its residual stream turned, where that can be, into folder `out`."""
    model, decoder = load(slot_graph)
    rotate(model)
    save(model, decoder, out)


def build_variant(
    variant: str, slot_graph: Path, calibration: Path | None, out: Path, progress: Show
) -> Decoder:
    """From the fp32 slot graph in folder `slot_graph`, write the variant's graph and description into `out`.

    `calibration`: the file that export.calibration wrote, for the variants that need one.
    """
    model, decoder = load(slot_graph)
    if calibration is not None and variant in _PASSES:
        _PASSES[variant](model, read_calibration(calibration), progress)
    save(model, decoder, out)
    return decoder


def build_int8_cache(graph: Path, maxima: Mapping[str, np.ndarray[Any, Any]], out: Path) -> Decoder:
    """From a graph with a float32 cache in folder `graph`, write the same with an int8 one into `out`."""
    model, decoder = load(graph)
    round_cache(model, maxima)
    rounded = describe(model, decoder)
    save(model, rounded, out)
    return rounded


def w8a8(model: ir.Model, seen: Activations, progress: Show) -> None:
    """Smooth and round every linear layer of an fp32 graph."""
    divided = smooth(model, seen.squares, least_error(seen.rows))
    grams = {name: gram / _outer(divided.get(name)) for name, gram in seen.grams.items()}
    quantise(model, progress, grams)


def _outer(factor: Array | None) -> Array | float:
    return 1.0 if factor is None else np.outer(factor, factor)


def _int4(model: ir.Model, seen: Activations, progress: Show) -> None:
    divided = smooth(model, seen.squares, for_rounded_weights)
    squares = {name: square / divided.get(name, 1) ** 2 for name, square in seen.squares.items()}
    quantise_blocks(model, squares, progress)


_PASSES: dict[str, Callable[[ir.Model, Activations, Show], None]] = {"w8a8": w8a8, "int4": _int4}
