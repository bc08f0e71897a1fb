"""The table of variants: what makes fp32, w8a8 and int4 of the fp32 slot graph, and which `auto` means.

Milliseconds of SmolLM2-135M on two cores of an AVX2 CPU without VNNI, context 256 (prefill: 512 tokens):

              decode 1 row   8 rows   32 rows   prefill
    fp32          31           40       103       747
    w8a8          11           23        82       590
    int4           7           26        96       961
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from basert.errors import ExportError
from basert.progress import Show
from engines.sessions.instructions import integer_products
from export.calibration import Activations, read_calibration
from export.graph import GRAPH, Decoder, read_decoder, save
from export.passes.blocks import quantise_blocks
from export.passes.quantise import quantise
from export.passes.smooth import for_rounded_activations, for_rounded_weights, smooth

VARIANTS = ("fp32", "w8a8", "int4")


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


def _w8a8(model: ir.Model, seen: Activations, progress: Show) -> None:
    smooth(model, seen.maxima, for_rounded_activations)
    quantise(model, progress)


def _int4(model: ir.Model, seen: Activations, progress: Show) -> None:
    power = {name: np.sqrt(square) for name, square in seen.squares.items()}
    divided = smooth(model, power, for_rounded_weights)
    squares = {name: square / divided.get(name, 1) ** 2 for name, square in seen.squares.items()}
    quantise_blocks(model, squares, progress)


_PASSES: dict[str, Callable[[ir.Model, Activations, Show], None]] = {"w8a8": _w8a8, "int4": _int4}
