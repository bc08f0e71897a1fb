"""w8a8 of an encoder's fp32 graph: outliers settled, then weights and rows in 8 bits."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from basert.progress import Show
from export.calibration import read_calibration
from export.encoders.graph import GRAPH, read_encoder, save
from export.passes.anatomy import token_linears
from export.passes.attention import fold_attention
from export.passes.outliers import settle_outliers
from export.passes.quantise import quantise_encoder


def build_settled(graph: Path, calibration: Path, out: Path, progress: Show) -> None:
    """From the fp32 graph in folder `graph`, write one that answers the same and loses less in 8 bits."""
    model = ir.load(graph / GRAPH)
    settle_outliers(model, read_calibration(calibration).rows, progress)
    fold_attention(model)  # of what shifting gave keys and values
    save(model, read_encoder(graph), out)


def build_w8a8(graph: Path, calibration: Path, out: Path, progress: Show) -> None:
    """From a settled graph in folder `graph` and what it was fed with, write the w8a8 one into `out`."""
    model = ir.load(graph / GRAPH)
    quantise_encoder(model, token_linears(model), progress, read_calibration(calibration).grams)
    save(model, read_encoder(graph), out)
