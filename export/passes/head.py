"""A head tied to the embedding reads the embedding's own matrix: Gemm(x, embedding[vocab, hidden], transB=1).

The exporter writes MatMul(x, Transpose(embedding)), or a second copy already transposed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import embedding
from export.passes.editing import Editor, array_of, prune


def tie_head(model: ir.Model) -> None:
    """Gemm wants two dimensions: the rows pass must follow. A head of its own is left alone."""
    editor = Editor(model)
    table = embedding(model).inputs[0]
    for node in list(model.graph):
        if node.op_type == "MatMul" and _is_turned(node.inputs[1], table):
            product = editor.insert(node, "Gemm", node.inputs[0], table, transB=1)
            editor.take_over(node.outputs[0], product)
    prune(model)


def _is_turned(value: ir.Value, table: ir.Value) -> bool:
    """Is `value` the transpose of `table`, computed or copied?"""
    node = value.producer()
    if node is not None:
        return bool(node.op_type == "Transpose" and node.inputs[0] is table)
    if value.shape is None or list(value.shape) != list(table.shape)[::-1]:
        return False
    return _equal(array_of(value), array_of(table).T)  # type: ignore[union-attr]


def _equal(left: Any, right: Any) -> bool:
    """Most copies that are none differ at once; only then is all of it compared."""
    return bool(np.array_equal(left[:1], right[:1]) and np.array_equal(left, right))
