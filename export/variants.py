"""The table of variants: what makes fp32, w8a8 and int4 of the fp32 slot graph, and which `auto` means.

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
from engines.sessions.instructions import integer_products
from export.calibration import Activations, read_calibration
from export.graph import GRAPH, Decoder, describe, read_decoder, save
from export.passes.blocks import quantise_blocks
from export.passes.cache import round_cache
from export.passes.quantise import quantise
from export.passes.smooth import for_rounded_activations, for_rounded_weights, smooth

VARIANTS = ("fp32", "w8a8", "int4")
CACHE_BITS = ("auto", "8", "32")


def choose_variant(asked: str) -> tuple[str, str]:
    """(variant, reason). `auto` is W8A8 on every CPU that multiplies 8-bit integers faster than floats."""
    if asked in VARIANTS:
        return asked, "asked for"
    if asked != "auto":
        raise ExportError(f"There is no variant {asked!r}; choose auto, {', '.join(VARIANTS)}.")
    feature = integer_products()
    if feature is None:
        return (
            "fp32",
            "auto: this CPU has no fast 8-bit integer products, so quantising would only cost quality",
        )
    return "w8a8", f"auto: with {feature}, W8A8 is the fastest for prefill and for several requests at once"


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


def build_variant(
    variant: str, slot_graph: Path, calibration: Path | None, out: Path, progress: Show
) -> Decoder:
    """From the fp32 slot graph in folder `slot_graph`, write the variant's graph and description into `out`.

    `calibration`: the file that export.calibration wrote, for the variants that need one.
    """
    model, decoder = ir.load(slot_graph / GRAPH), read_decoder(slot_graph)
    if calibration is not None and variant in _PASSES:
        _PASSES[variant](model, read_calibration(calibration), progress)
    save(model, decoder, out)
    return decoder


def build_int8_cache(graph: Path, maxima: Mapping[str, np.ndarray[Any, Any]], out: Path) -> Decoder:
    """From a graph with a float32 cache in folder `graph`, write the same with an int8 one into `out`."""
    model, decoder = ir.load(graph / GRAPH), read_decoder(graph)
    round_cache(model, maxima)
    rounded = describe(model, decoder)
    save(model, rounded, out)
    return rounded


def _w8a8(model: ir.Model, seen: Activations, progress: Show) -> None:
    smooth(model, seen.maxima, for_rounded_activations)
    quantise(model, progress)


def _int4(model: ir.Model, seen: Activations, progress: Show) -> None:
    power = {name: np.sqrt(square) for name, square in seen.squares.items()}
    divided = smooth(model, power, for_rounded_weights)
    squares = {name: square / divided.get(name, 1) ** 2 for name, square in seen.squares.items()}
    quantise_blocks(model, squares, progress)


_PASSES: dict[str, Callable[[ir.Model, Activations, Show], None]] = {"w8a8": _w8a8, "int4": _int4}
