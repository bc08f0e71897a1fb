"""int4: every linear layer as MatMulNBits with 4-bit blocks; head and embedding share one 8-bit tensor.

MatMulNBits quantises its activations itself, row by row (accuracy level 4: 8-bit products).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, embedding, head, linears
from export.passes.editing import MICROSOFT, Editor, data_of, prune
from export.passes.rounding import BLOCK, eight_bits, four_bits

Array = np.ndarray[Any, Any]


def quantise_blocks(
    model: ir.Model, squares: Mapping[str, Array], progress: Callable[[int, int], None]
) -> None:
    """`squares`: sum of squares of each input channel, by the name of the weight that reads it."""
    editor = Editor(model)
    last, layers = head(model), linears(model)
    for done, linear in enumerate(layers):
        progress(done, len(layers))
        if linear.node is last.node:
            _eight_bit_head(editor, linear)
        else:
            _four_bit_linear(editor, linear, squares[linear.name])
    _eight_bit_embedding(editor, embedding(model))
    prune(model)


def _four_bit_linear(editor: Editor, linear: Linear, squares: Array) -> None:
    packed, scale, zero = four_bits(linear.matrix(), squares)
    weights = [
        editor.constant(f"{linear.name}.int4", packed),
        editor.constant(f"{linear.name}.scale", scale),
        editor.constant(f"{linear.name}.zero", zero),
    ]
    _multiply(editor, linear, weights, bits=4)


def _eight_bit_head(editor: Editor, linear: Linear) -> None:
    rows, scale = _eight_bit_rows(editor, linear.name, np.ascontiguousarray(linear.matrix().T))
    outputs, inputs = rows.shape
    shape = editor.constant("head.blocks", np.array([outputs, inputs // BLOCK, BLOCK]))
    weight = editor.insert(linear.node, "Reshape", rows, shape)  # done when a session loads it
    _multiply(
        editor,
        linear,
        [weight, editor.insert(linear.node, "Reshape", scale, editor.constant("flat", np.array([-1])))],
        bits=8,
    )


def _eight_bit_embedding(editor: Editor, node: ir.Node) -> None:
    table, ids = node.inputs
    rows, scale = _eight_bit_rows(editor, table.name, data_of(table))
    tokens = editor.insert(
        node,
        "GatherBlockQuantized",
        rows,
        ids,
        scale,
        domain=MICROSOFT,
        bits=8,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    editor.take_over(node.outputs[0], tokens)


def _eight_bit_rows(editor: Editor, name: str, rows: Array) -> tuple[ir.Value, ir.Value]:
    """uint8 [rows, channels] and float32 [rows, blocks], made once for a name."""
    if f"{name}.int8" not in editor.graph.initializers:
        values, scale = eight_bits(rows)
        editor.constant(f"{name}.int8", values)
        editor.constant(f"{name}.scale", scale)
    return editor.graph.initializers[f"{name}.int8"], editor.graph.initializers[f"{name}.scale"]


def _multiply(editor: Editor, linear: Linear, weights: list[ir.Value], bits: int) -> None:
    inputs, outputs = linear.matrix().shape
    product = editor.insert(
        linear.node,
        "MatMulNBits",
        linear.source,
        *weights,
        domain=MICROSOFT,
        K=inputs,
        N=outputs,
        bits=bits,
        block_size=BLOCK,
        accuracy_level=4,
    )
    editor.take_over(linear.node.outputs[0], product)
