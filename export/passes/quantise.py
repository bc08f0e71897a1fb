"""W8A8: every linear layer as MatMulIntegerToFloat on unsigned 8-bit rows and signed 8-bit columns.

    r = max |x| / 127 of each row;  u = QuantizeLinear(x, r, 128);  y = (u - 128) W8 * column scale;  y * r

One scale per row of activations and per column of weights, never per tensor: a row's result does not
depend on what shares its batch. The row scale is a factor that moves freely through products, so it is
applied late or never: up's is carried past the gate's product into down's, and ArgMax does without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, embedding, linears
from export.passes.compensate import columns_to_int8
from export.passes.editing import MICROSOFT, Editor, consumers, data_of, prune
from export.passes.outputs import BLOCKS_NAME

Array = np.ndarray[Any, Any]


def quantise(
    model: ir.Model, progress: Callable[[int, int], None], grams: Mapping[str, Array] | None = None
) -> None:
    """Every linear layer, and of a decoder the head and the embedding, `rows` and `outputs` being passed.

    grams: x^T x of a layer's inputs, float32 [in, in], by the name of its weight; with one, a layer is
    rounded as export.passes.compensate does it, else to the nearest.
    """
    quantiser, layers = _Quantiser(model, grams or {}), linears(model)
    for done, linear in enumerate(layers):
        progress(done, len(layers))
        quantiser.convert(linear)
    if any(value.name == "input_ids" for value in model.graph.inputs):
        quantiser.embed(embedding(model))
    _choose_unscaled(model, quantiser.scaled)
    prune(model)


class _Quantiser:
    def __init__(self, model: ir.Model, grams: Mapping[str, Array]) -> None:
        self.editor = Editor(model)
        self.grams = grams
        self.scaled: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}  # Mul(raw, scale) -> (raw, scale)
        self._rows: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}  # x -> (u, r)
        self._one = self.editor.constant("one", np.float32(1))
        self._inverse = self.editor.constant("inverse127", np.float32(1 / 127))
        self._last = self.editor.constant("last_axis", np.array([-1]))
        self._middle = self.editor.constant("middle128", np.uint8(128))
        inputs = {value.name: value for value in model.graph.inputs}
        self._flat = _depends_on(inputs["logits_idx"]) if "logits_idx" in inputs else set()
        ids = [inputs[name] for name in ("input_ids", "logits_idx") if name in inputs]
        self._middles = [self._zero_points(value) for value in ids]

    def convert(self, linear: Linear) -> None:
        node = linear.node
        carried = self._carry(linear)
        u, r = self._quantised(linear.source, node, linear.matrix().shape[0])
        weight, scale = self._weight(linear)
        raw = self.editor.insert(
            node, "MatMulIntegerToFloat", u, weight, self._one, scale, self._middle, domain=MICROSOFT
        )
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
        factor = insert(node, "Unsqueeze", insert(node, "Gather", scale, ids, axis=0), self._last)
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

    def _quantised(self, x: ir.Value, before: ir.Node, channels: int) -> tuple[ir.Value, ir.Value]:
        if x not in self._rows:
            insert = self.editor.insert
            largest = insert(before, "ReduceMax", insert(before, "Abs", x), self._last, keepdims=1)
            r = insert(before, "Mul", largest, self._inverse)
            if not self._middles:  # of a graph that reads no tokens all rows are alike
                self._middles.append(self._zero_points(x, before, end=-1))
            middles = self._middles[x.producer() in self._flat]
            u = insert(before, "QuantizeLinear", x, r, middles, axis=-1, block_size=channels)
            self._rows[x] = u, r
        return self._rows[x]

    def _zero_points(self, like: ir.Value, before: ir.Node | None = None, **part: Any) -> ir.Value:
        """uint8 128 in the shape of `like`, or of a part of that, with one axis more, of size one."""
        first = before or next(iter(self.editor.graph))
        shape = self.editor.insert(first, "Shape", like, **part)
        column = self.editor.insert(
            first, "Concat", shape, self.editor.constant("column", np.array([1])), axis=0
        )
        value = ir.tensor(np.array([128], np.uint8))
        return self.editor.insert(first, "ConstantOfShape", column, value=value)


def _depends_on(value: ir.Value) -> set[ir.Node]:
    found: set[ir.Node] = set()
    todo = consumers(value)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(user for output in node.outputs for user in consumers(output))
    return found


def _choose_unscaled(model: ir.Model, scaled: dict[ir.Value, tuple[ir.Value, ir.Value]]) -> None:
    """The best token does not change when its row is scaled: it is looked for in the head's raw output."""
    for node in model.graph:
        if (node.op_type == "ArgMax" or node.name == BLOCKS_NAME) and node.inputs[0] in scaled:
            node.replace_input_with(0, scaled[node.inputs[0]][0])
