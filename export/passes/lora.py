"""Low-rank adapters beside the linear layers of a finished decoder graph: y = x W + (x A) B.

inputs   lora_rows.{n}[units * n, batch] f32: 1 where a row takes a unit's part, else 0; for each n that is
         some layer's number of parts
         lora.{i}.a[units * n, in, UNIT] f32, lora.{i}.b[units * n * UNIT, out] f32, layer by layer

A unit is UNIT ranks of one adapter, a part of it those of one of the layer's modules (LoraLayer.parts). A
row's bits depend neither on other rows nor on which units are bound beside its own, and a row without an
adapter gets what the graph without adapters gives it, to the bit. Products of ONNX Runtime are added up in
blocks of 128 terms or a multiple, which depends on other sizes and on the threads. So x A is a product for
each part, too narrow to be cut in several ways; and those terms of the second product that are not zero, an
adapter's for a module, lie in one block: they are a power of two up to 128, and begin at a multiple of it.

Where a quantised layer's rows are scaled late (export.passes.quantise), so are the adapters'.

All tokens of a run lie in one row, [1, batch * chunk, channels], but around attention: so a part's product is
one of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from basert.manifest import LoraLayer
from export.passes.editing import MICROSOFT, Editor, consumers, reached
from export.passes.folds import stem

UNIT = 8
ROWS = "lora_rows."
PRODUCTS = {"MatMul", "MatMulIntegerToFloat", "MatMulNBits"}
PAST_KEY = 3  # GroupQueryAttention's input
SMALLEST = 1e-30  # of a row's scale: a row of zeros has none to divide by
# A product of one row takes another kernel, which adds in another order, unless it is scaled besides.
HALF, DOUBLE = 0.5, 2.0


@dataclass(frozen=True)
class _Place:
    """Where in the graph a layer's adapters go."""

    x: ir.Value
    y: ir.Value  # what they are added to
    times: ir.Value | None = None  # x was not multiplied with this yet, y is
    over: ir.Value | None = None  # y is to be multiplied with this later


def add_lora(model: ir.Model, layers: list[LoraLayer]) -> list[LoraLayer]:
    """Returns those of the layers that are in the graph; their number is the i of their inputs."""
    nodes = {
        stem(node.inputs[1]): node
        for node in model.graph
        if node.op_type in PRODUCTS and node.inputs[1].is_initializer()
    }
    there = [layer for layer in layers if layer.name in nodes]
    editor = Editor(model)
    _lay_in_one_row(editor)
    adder = _Adder(editor)
    for number, layer in enumerate(there):
        adder.add(number, layer, _place_of(nodes[layer.name]))
    return there


def _place_of(node: ir.Node) -> _Place:
    """Behind the row scale where it follows at once; else it was carried on to the next layer."""
    y = node.outputs[0]
    if node.op_type != "MatMulIntegerToFloat":
        return _Place(node.inputs[0], y)
    x, size = node.inputs[0].producer().inputs[:2]
    for user in consumers(y):
        scale = next((value for value in user.inputs if value is not y), None)
        if user.op_type != "Mul" or scale is None:
            continue
        if scale is size:
            return _Place(x, user.outputs[0])
        parts = list(scale.producer().inputs) if scale.producer() is not None else []
        carried = [part for part in parts if part is not size]
        if len(parts) == 2 and len(carried) == 1:
            return _Place(x, user.outputs[0], times=carried[0])
    return _Place(x, y, over=size)


class _Adder:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._first = next(iter(editor.graph))
        inputs = {value.name: value for value in editor.graph.inputs}
        self._picked = reached(inputs["logits_idx"])
        self._ids, self._few = inputs["input_ids"], inputs["logits_idx"]
        self._masks: dict[int, tuple[ir.Value, ir.Value]] = {}
        self._last = editor.constant("lora.last", np.array([-1]))
        self._one = editor.constant("lora.one", np.array([1]))
        self._column = editor.constant("lora.column", np.array([0, -1, 1]))
        self._joined = editor.constant("lora.joined", np.array([0, -1]))
        self._least = editor.constant("lora.least", np.float32(SMALLEST))

    def add(self, number: int, layer: LoraLayer, place: _Place) -> None:
        parts = f"units * {layer.parts}"
        a = self._input(f"lora.{number}.a", [parts, layer.inputs, UNIT])
        b = self._input(f"lora.{number}.b", [f"{parts} * {UNIT}", layer.outputs])
        node = place.y.producer()
        picked, before = node in self._picked, _next(node)

        def insert(op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
            return self.editor.insert(before, op, *inputs, **attributes)

        def multiply(x: ir.Value, y: ir.Value, alpha: float) -> ir.Value:
            return insert("FusedMatMul", x, y, domain=MICROSOFT, alpha=alpha)

        low = insert("Mul", multiply(place.x, a, HALF), self._mask(layer.parts)[picked])
        if place.times is not None:
            low = insert("Mul", low, place.times)
        if place.over is not None:
            low = insert("Div", low, insert("Max", place.over, self._least))
        by_token = insert("Reshape", insert("Transpose", low, perm=[1, 0, 2]), self._joined)
        change = multiply(by_token, b, DOUBLE)
        users = [(use.node, use.idx) for use in place.y.uses()]
        total = insert("Add", place.y, change)
        for user, index in users:
            user.replace_input_with(index, total)

    def _mask(self, parts: int) -> tuple[ir.Value, ir.Value]:
        """float32 [units * parts, batch * chunk, 1], and the same of the rows that are picked; made once."""
        if parts not in self._masks:
            rows = self._input(f"{ROWS}{parts}", [f"units * {parts}", "batch"])
            shape = self._insert_first("Concat", self._one, self._insert_first("Shape", self._ids), axis=0)
            spread = self._insert_first("Expand", self._insert_first("Unsqueeze", rows, self._last), shape)
            whole = self._insert_first("Reshape", spread, self._column)
            self._masks[parts] = whole, self._insert_first("Gather", whole, self._few, axis=1)
        return self._masks[parts]

    def _insert_first(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Before all that was there, behind what was inserted so before."""
        return self.editor.insert(self._first, op, *inputs, **attributes)

    def _input(self, name: str, shape: list[int | str]) -> ir.Value:
        return self.editor.graph_input(name, ir.DataType.FLOAT, shape)


def _lay_in_one_row(editor: Editor) -> None:
    """The stream becomes [1, tokens, channels]; attention keeps [batch, chunk, channels]."""
    ids = next(value for value in editor.graph.inputs if value.name == "input_ids")
    first = next(iter(editor.graph))
    flat = editor.insert(first, "Reshape", ids, editor.constant("lora.flat", np.array([1, -1])))
    shape = editor.insert(first, "Shape", ids)
    apart = editor.insert(first, "Concat", shape, editor.constant("lora.rest", np.array([-1])), axis=0)
    kept = {flat.producer(), shape.producer()}
    for use in list(ids.uses()):
        if use.node not in kept and _by_token(use.node):
            use.node.replace_input_with(use.idx, flat)
    for node in list(editor.graph):
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None  # has changed
        attention = _attention_in(node)
        if attention is not None:
            _reshape_around(editor, node, attention, apart)


def _by_token(node: ir.Node) -> bool:
    """Whether a reader of the ids makes something for each token that goes on in the stream."""
    if node.op_type != "Shape":
        return "Gather" in node.op_type
    return any(user.op_type == "ConstantOfShape" for user in reached(node.outputs[0]))


def _attention_in(node: ir.Node) -> ir.Node | None:
    """The GroupQueryAttention that a node is, or has in its branch for decode steps."""
    if node.op_type == "GroupQueryAttention":
        return node
    if node.op_type != "If":
        return None
    branch = node.attributes["then_branch"].as_graph()
    return next((inner for inner in branch if inner.op_type == "GroupQueryAttention"), None)


def _reshape_around(editor: Editor, node: ir.Node, attention: ir.Node, apart: ir.Value) -> None:
    for value in attention.inputs[:PAST_KEY]:
        if value is not None:
            uses = list(value.uses())
            shaped = editor.insert(node, "Reshape", value, apart)
            for use in uses:
                use.node.replace_input_with(use.idx, shaped)
    channels = attention.attributes["num_heads"].as_int() * int(attention.inputs[PAST_KEY].shape[3])
    out, after = node.outputs[0], _next(node)
    uses = list(out.uses())
    shape = editor.constant(f"lora.joined.{channels}", np.array([1, -1, channels]))
    joined = editor.insert(after, "Reshape", out, shape)
    for use in uses:
        use.node.replace_input_with(use.idx, joined)


def _next(node: ir.Node) -> ir.Node:
    """The one behind it in the graph's order."""
    nodes = iter(node.graph)
    for one in nodes:
        if one is node:
            return next(nodes)
    raise AssertionError("a node is in its graph")
