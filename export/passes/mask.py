"""The attention mask of an encoder without what torch's exporter adds to it.

transformers makes a mask of rules over positions and looks padding up by index. Of a mask for all directions
only padding is left: [rows, 1, 1, tokens], added to the scores of all queries alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.editing import Editor, array_of, prune


def plain_mask(model: ir.Model) -> None:
    """Rules that hold everywhere go; padding is taken as it comes. Other rules (causal, windows) stay."""
    editor = Editor(model)
    for node in list(model.graph):
        if node.op_type == "GatherND":
            _unsqueezed(editor, node)
        elif node.op_type == "And":
            _drop_true(node)
        elif node.op_type == "Gather":
            _row_of_zeros(editor, node)
    prune(model)


def _unsqueezed(editor: Editor, node: ir.Node) -> None:
    """mask[row, key] for every row and key is the mask itself."""
    mask, made = node.inputs[0].shape, node.outputs[0].shape
    if mask is None or made is None or len(mask) != 2 or list(made) != [mask[0], 1, 1, mask[1]]:
        return
    axes = editor.constant("mask.axes", np.array([1, 2], np.int64))
    plain = editor.insert(node, "Unsqueeze", node.inputs[0], axes)
    plain.shape = made
    node.outputs[0].replace_all_uses_with(plain)


def _drop_true(node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if _always_true(value):
            node.outputs[0].replace_all_uses_with(node.inputs[1 - index])
            return


def _always_true(value: ir.Value) -> bool:
    array = array_of(value)
    if array is not None:
        return bool(array.all())
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "And":
        return all(_always_true(source) for source in node.inputs)
    return node.op_type == "GreaterOrEqual" and _counts_up(node.inputs[0]) and _is_zero(node.inputs[1])


def _counts_up(value: ir.Value) -> bool:
    """0, 1, 2, … whatever its shape."""
    node = value.producer()
    while node is not None and node.op_type == "Unsqueeze":
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Range" and _is_zero(node.inputs[0])


def _is_zero(value: ir.Value) -> bool:
    array = array_of(value)
    return array is not None and not array.any()


def _row_of_zeros(editor: Editor, node: ir.Node) -> None:
    """Token types that are all zero: one row of the table for all tokens."""
    table: Any = array_of(node.inputs[0])
    spread = node.inputs[1].producer()
    if table is None or table.ndim != 2 or spread is None or spread.op_type != "Expand":
        return
    if _is_zero(spread.inputs[0]):
        row = editor.constant(f"{node.inputs[0].name}.first", np.ascontiguousarray(table[0]))
        node.outputs[0].replace_all_uses_with(row)
