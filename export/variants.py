"""The table of variants: what makes fp32, w8a8 and int4 of the fp32 slot graph, and which one `auto` means."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from basert.errors import ExportError
from basert.progress import Show
from export.calibration import read_calibration
from export.graph import GRAPH, Decoder, read_decoder, save
from export.passes.quantise import quantise
from export.passes.smooth import smooth

VARIANTS = ("fp32", "w8a8", "int4")


def needs_calibration(variant: str) -> bool:
    return variant != "fp32"


def build_variant(
    variant: str, slot_graph: Path, calibration: Path | None, out: Path, progress: Show
) -> Decoder:
    """From the fp32 slot graph in folder `slot_graph`, write the variant's graph and description into `out`."""
    model, decoder = ir.load(slot_graph / GRAPH), read_decoder(slot_graph)
    if variant == "w8a8":
        smooth(model, read_calibration(calibration).maxima)
        quantise(model)
    save(model, decoder, out)
    return decoder
