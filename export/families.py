"""Which exporter builds which family: model_type -> Recipe. Knows configs, no graph surgery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How one family's checkpoint becomes an ONNX graph."""

    exporter: str  # "mobius-onnx 0.1.0"
    build: Callable[[Path], Any]  # checkpoint folder -> onnx_ir.Model with fp32 weights


def recipe_for(checkpoint: Path) -> Recipe:
    """The recipe of the checkpoint's model_type; an unknown one raises ExportError naming what is supported.

    Reads config.json only, so the pipeline may call it before it downloads or loads anything large.
    """
    raise NotImplementedError
