"""W8A8: every linear layer as MatMulIntegerToFloat on unsigned 8-bit rows and signed 8-bit columns.

    r = max |x| / 127 of each row;  u = QuantizeLinear(x, r, 128);  y = (u - 128) W8 * column scale;  y * r

One scale per row of activations and per column of weights, never per tensor: a row's result does not
depend on what shares its batch. The row scale is a factor that moves freely through products, so it is
applied late or never: up's is carried past the gate's product into down's, and ArgMax does without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, embedding, linears
from export.passes.compensate import columns_to_int8
from export.passes.editing import MICROSOFT, Editor, consumers, data_of, prune, reached
from export.passes.outputs import BLOCKS_NAME

Array = np.ndarray[Any, Any]


def quantise(
    model: ir.Model, progress: Callable[[int, int], None], grams: Mapping[str, Array] | None = None
) -> None:
    """Every linear layer, and of a decoder the head and the embedding, `rows` and `outputs` being passed.

    grams: x^T x of a layer's inputs, float32 [in, in], by the name of its weight; with one, a layer is
    rounded as export.passes.compensate does it, else to the nearest.
    """
    quantiser = _Quantiser(model, grams or {}, absolute)
    quantiser.convert_all(linears(model), progress)
    if any(value.name == "input_ids" for value in model.graph.inputs):
        quantiser.embed(embedding(model))
    _choose_unscaled(model, quantiser.scaled)
    prune(model)


def quantise_encoder(
    model: ir.Model,
    layers: Sequence[Linear],
    progress: Callable[[int, int], None],
    grams: Mapping[str, Array] | None = None,
) -> None:
    """Those linear layers and the embedding. The layers read [rows, tokens, channels]; `grams` as above."""
    quantiser = _Quantiser(model, grams or {}, both_ends)
    quantiser.convert_all(layers, progress)
    quantiser.embed(embedding(model))
    prune(model)


@dataclass(frozen=True)
class Steps:
    """How a row becomes 8 bits: u = round(x / size) + zero."""

    size: ir.Value  # float32 [..., 1]
    zero: int = 128


Measure = Callable[[Editor, ir.Node, ir.Value], Steps]
"""Inserts, before a node, what finds a row's steps."""


def absolute(editor: Editor, before: ir.Node, x: ir.Value) -> Steps:
    """By the largest absolute value: the fewest nodes."""
    largest = editor.insert(before, "ReduceMax", editor.insert(before, "Abs", x), _last(editor), keepdims=1)
    return Steps(editor.insert(before, "Mul", largest, _number(editor, 1 / 127)))


def both_ends(editor: Editor, before: ir.Node, x: ir.Value) -> Steps:
    """The same by the largest and the least: nothing as large as x is written, which many rows gain from.

    What Gelu made is hardly below zero: nearly all of the 8 bits go to what is above.
    """
    largest = editor.insert(before, "ReduceMax", x, _last(editor), keepdims=1)
    node = x.producer()
    if node is not None and node.op_type == "Gelu":
        above = editor.insert(before, "Mul", largest, _number(editor, 1 / (255 - GELU_ZERO)))
        return Steps(editor.insert(before, "Max", above, _number(editor, GELU_LEAST / GELU_ZERO)), GELU_ZERO)
    least = editor.insert(before, "ReduceMin", x, _last(editor), keepdims=1)
    above = editor.insert(before, "Mul", largest, _number(editor, 1 / 127))
    return Steps(
        editor.insert(before, "Max", above, editor.insert(before, "Mul", least, _number(editor, -1 / 127)))
    )


GELU_LEAST = 0.17  # Gelu answers nothing below minus this
GELU_ZERO = 32  # a smaller one would coarsen rows that hardly rise above zero


def _last(editor: Editor) -> ir.Value:
    return editor.constant("last_axis", np.array([-1]))


def _number(editor: Editor, number: float) -> ir.Value:
    return editor.constant(f"number.{number:.6g}", np.float32(number))


class _Quantiser:
    def __init__(self, model: ir.Model, grams: Mapping[str, Array], measure: Measure) -> None:
        self.editor = Editor(model)
        self.grams, self.measure = grams, measure
        self.scaled: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}  # Mul(raw, scale) -> (raw, scale)
        self._rows: dict[ir.Value, tuple[ir.Value, Steps]] = {}  # x -> (u, its steps)
        self._one = self.editor.constant("one", np.float32(1))
        inputs = {value.name: value for value in model.graph.inputs}
        self._whole, self._picked = inputs.get("input_ids"), inputs.get("logits_idx")
        self._flat = reached(self._picked) if self._picked is not None else set()
        self._zeros: dict[tuple[ir.Value | None, int], ir.Value] = {}

    def convert_all(self, layers: Sequence[Linear], progress: Callable[[int, int], None]) -> None:
        for done, linear in enumerate(layers):
            progress(done, len(layers))
            self.convert(linear)

    def convert(self, linear: Linear) -> None:
        node = linear.node
        carried = self._carry(linear)
        u, steps = self._quantised(linear.source, node, linear.matrix().shape[0])
        weight, scale = self._weight(linear)
        zero = self.editor.constant(f"zero{steps.zero}", np.uint8(steps.zero))
        raw = self.editor.insert(
            node, "MatMulIntegerToFloat", u, weight, self._one, scale, zero, domain=MICROSOFT
        )
        r = steps.size
        if carried is not None:
            r = self.editor.insert(node, "Mul", r, carried)
        out = self.editor.insert(node, "Mul", raw, r)
        self.scaled[out] = raw, r
        self.editor.take_over(node.outputs[0], out)

    def embed(self, node: ir.Node) -> None:
        """Tokens are embedded from int8 rows, which are the head's columns where the two are tied."""
        weight, scale = self._rows_of(node.inputs[0])
        ids, insert = node.inputs[1], self.editor.insert
        row = insert(node, "Cast", insert(node, "Gather", weight, ids, axis=0), to=ir.DataType.FLOAT)
        scales = insert(node, "Gather", scale, ids, axis=0)
        factor = insert(node, "Unsqueeze", scales, _last(self.editor))
        self.editor.take_over(node.outputs[0], insert(node, "Mul", row, factor))

    def _weight(self, linear: Linear) -> tuple[ir.Value, ir.Value]:
        """int8 [in, out] and its float32 scales [out]. A transposed one is turned when a session loads it,
        so that embedding and head can share one tensor in the file."""
        if linear.transposed:
            rows, scale = self._rows_of(linear.weight)
            return self.editor.insert(linear.node, "Transpose", rows, perm=[1, 0]), scale
        weight, scale = columns_to_int8(linear.matrix(), self.grams.get(linear.name))
        name = linear.name
        return self.editor.constant(f"{name}.int8", weight), self.editor.constant(f"{name}.scale", scale)

    def _rows_of(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """int8 [rows, channels] and float32 [rows] of an embedding matrix, made once."""
        names = f"{value.name}.int8", f"{value.name}.scale"
        made = self.editor.graph.initializers
        if names[0] not in made:
            weight, scale = columns_to_int8(data_of(value).T, self.grams.get(str(value.name)))
            self.editor.constant(names[0], np.ascontiguousarray(weight.T))
            self.editor.constant(names[1], scale)
        return made[names[0]], made[names[1]]

    def _carry(self, linear: Linear) -> ir.Value | None:
        """Takes a row scale out of the product that `linear` reads, when nothing else sees the product."""
        product = linear.source.producer()
        if product is None or product.op_type != "Mul" or len(consumers(linear.source)) != 1:
            return None
        for index, value in enumerate(product.inputs):
            if value in self.scaled and len(consumers(value)) == 1:
                raw, scale = self.scaled[value]
                product.replace_input_with(index, raw)
                return scale
        return None

    def _quantised(self, x: ir.Value, before: ir.Node, channels: int) -> tuple[ir.Value, Steps]:
        if x not in self._rows:
            steps = self.measure(self.editor, before, x)
            zeros = self._zero_points(x, before, steps.zero)
            u = self.editor.insert(
                before, "QuantizeLinear", x, steps.size, zeros, axis=-1, block_size=channels
            )
            self._rows[x] = u, steps
        return self._rows[x]

    def _zero_points(self, x: ir.Value, before: ir.Node, zero: int) -> ir.Value:
        """uint8 `zero` for each row of x, [..., 1]; made once, first of all, from ids with a row each.

        In a graph that reads no tokens all inputs of layers have the same rows: those of the first tell.
        """
        like = self._picked if x.producer() in self._flat else self._whole
        if (like, zero) not in self._zeros:
            insert = self.editor.insert
            first = before if like is None else next(iter(self.editor.graph))
            shape = insert(first, "Shape", x, end=-1) if like is None else insert(first, "Shape", like)
            column = insert(first, "Concat", shape, self.editor.constant("column", np.array([1])), axis=0)
            value = ir.tensor(np.array([zero], np.uint8))
            self._zeros[like, zero] = insert(first, "ConstantOfShape", column, value=value)
        return self._zeros[like, zero]


def _choose_unscaled(model: ir.Model, scaled: dict[ir.Value, tuple[ir.Value, ir.Value]]) -> None:
    """The best token does not change when its row is scaled: it is looked for in the head's raw output."""
    for node in model.graph:
        if (node.op_type == "ArgMax" or node.name == BLOCKS_NAME) and node.inputs[0] in scaled:
            node.replace_input_with(0, scaled[node.inputs[0]][0])
