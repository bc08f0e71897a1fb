"""Scales the columns of what a linear layer makes, at no cost: its columns have scales of their own.

    MatMulIntegerToFloat (then the row scale's Mul), MatMulNBits, MatMul, Gemm; with them, a bias

What comes from anywhere else, such as a normalisation, gets a Mul.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.editing import Editor, array_of, consumers, data_of, set_array
from export.passes.folds import folds_of, stem

Array = np.ndarray[Any, Any]

COLUMN_SCALES = {"MatMulIntegerToFloat": 3, "MatMulNBits": 2}
"""Operator -> index of its float32 scales: [columns], or [columns, blocks] flattened or not."""


def scale_columns(editor: Editor, value: ir.Value, reader: ir.Node, factor: Array) -> ir.Value:
    """`value` [..., columns] times factor [columns], float32: itself, or what a Mul before `reader` makes."""
    if (layer := _scaled(value, factor)) is not None:
        folds_of(editor.graph).scale_outputs(stem(layer.inputs[1]), factor)
        return value
    constant = editor.constant(f"{value.name}.columns", factor)
    return editor.insert(reader, "Mul", value, constant)


def _scaled(value: ir.Value, factor: Array) -> ir.Node | None:
    """The layer into which the factor could be folded, which makes `value`. If None, nothing was changed."""
    node = value.producer()
    if node is None or len(consumers(value)) != 1:
        return None
    if node.op_type == "Add" and _is_own(node.inputs[1], factor.shape):
        layer = _scaled(node.inputs[0], factor)
        if layer is not None:
            set_array(node.inputs[1], data_of(node.inputs[1]) * factor)
        return layer
    if node.op_type == "Mul":  # by the row scale
        raw = node.inputs[0].producer()
        scaled = raw is not None and raw.op_type in COLUMN_SCALES
        return _scaled(node.inputs[0], factor) if scaled else None
    if node.op_type in COLUMN_SCALES:
        return node if _scale_quantised(node.inputs[COLUMN_SCALES[node.op_type]], factor) else None
    if node.op_type in ("MatMul", "Gemm"):
        return node if _scale_matrix(node, factor) else None
    return None


def _scale_quantised(scales: ir.Value, factor: Array) -> bool:
    array = array_of(scales)
    if array is None or len(consumers(scales)) != 1:
        return False
    set_array(scales, (array.reshape(len(factor), -1) * factor[:, None]).reshape(array.shape))
    return True


def _scale_matrix(node: ir.Node, factor: Array) -> bool:
    weight = node.inputs[1]
    array = array_of(weight)
    if array is None or len(consumers(weight)) != 1 or len(node.inputs) > 2:
        return False
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    set_array(weight, array * (factor[:, None] if transposed else factor))
    return True


def _is_own(value: ir.Value, shape: tuple[int, ...]) -> bool:
    """Is it a constant of this shape that nothing else reads?"""
    array = array_of(value)
    return array is not None and array.shape == shape and len(consumers(value)) == 1
