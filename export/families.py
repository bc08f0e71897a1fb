"""Which exporter builds which family: model_type -> Recipe. Knows configurations, no graph surgery.

mobius-onnx knows a hundred decoder-only architectures. What it builds with GroupQueryAttention, our passes
turn into a slot graph, and the parity gate has the last word on each export. PROVEN lists what tests compare.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from basert.errors import ExportError
from export.checkpoint import first_line, read_config
from export.skeleton import skeleton

PROVEN = ("gemma3_text", "glm4", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")


@dataclass(frozen=True)
class Recipe:
    """How one family's checkpoint becomes an ONNX graph."""

    exporter: str  # "mobius-onnx 0.1.0"
    build: Callable[[Path], Any]  # checkpoint folder -> onnx_ir.Model with fp32 weights


def recipe_for(checkpoint: Path) -> Recipe:
    """The recipe of the checkpoint's model_type; an unknown one raises ExportError naming what is supported.

    Reads config.json only, so that it may be called before anything large is loaded.
    """
    config = read_config(checkpoint)
    if not _mobius_generates(config.model_type):
        raise ExportError(
            f"Architecture {config.model_type!r} is not supported: basert exports decoder-only models "
            f"({', '.join(PROVEN)}, and others that mobius-onnx builds with GroupQueryAttention)."
        )
    return Recipe(f"mobius-onnx {version('mobius-onnx')}", _from_mobius)


def _mobius_generates(model_type: str) -> bool:
    import mobius

    known = mobius.registry
    if model_type not in known:
        return False
    usual = getattr(known.get(model_type), "default_task", "text-generation")
    return bool((known.get_task(model_type) or usual) == "text-generation")


def _from_mobius(checkpoint: Path) -> Any:
    """mobius' graph for the CPU provider: opset 24, packed QKV, GroupQueryAttention that rotates."""
    import mobius

    with _quiet():
        try:
            package = mobius.build(
                str(checkpoint), dtype="f32", execution_provider="cpu", task="text-generation"
            )
        except Exception as error:  # a library this wide raises anything
            raise ExportError(f"{checkpoint} cannot be exported: {first_line(error)}.") from error
    model = package["model"]
    _fill_absent_biases(model, checkpoint)
    empty = [name for name, value in model.graph.initializers.items() if value.const_value is None]
    if empty:
        raise ExportError(
            f"{checkpoint} lacks weights that mobius-onnx wants, first {empty[0]!r}: the checkpoint is"
            " incomplete, or its exporter does not know this variant of the architecture."
        )
    return model


def _fill_absent_biases(model: Any, checkpoint: Path) -> None:
    """mobius gives some architectures (GLM, Seed-OSS) a bias that transformers' model has not: zero."""
    empty = [value for value in model.graph.initializers.values() if value.const_value is None]
    known = skeleton(read_config(checkpoint)).state_dict() if empty else {}
    for value in empty:
        if value.name.endswith(".bias") and value.name not in known:
            value.const_value = ir.tensor(np.zeros([int(size) for size in value.shape], np.float32))


@contextlib.contextmanager
def _quiet() -> Any:
    """mobius draws progress bars of its own and logs what our passes mend."""
    logger = logging.getLogger("mobius")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
