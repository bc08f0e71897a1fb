"""Column factors: folded into what makes a value where that is possible, else multiplied; never both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.passes.columns import scale_columns
from export.passes.editing import Editor

IN, OUT = 8, 6
DRAW = np.random.default_rng(0)
WEIGHT = DRAW.standard_normal((IN, OUT)).astype(np.float32)
FACTOR = DRAW.uniform(0.5, 2, OUT).astype(np.float32)


def graph(op: str) -> tuple[ir.Model, Editor, ir.Node]:
    """x[rows, IN] through a linear layer named `op` (+ for a bias, ~ for a norm behind it) to y, by Neg."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", IN]))
    y = ir.node("Neg", [x])
    y.outputs[0].name, y.outputs[0].type = "y", x.type
    model = ir.Model(ir.Graph([x], y.outputs, nodes=[y], opset_imports={"": 24}, name="g"), ir_version=11)
    editor = Editor(model)
    value = _linear(editor, y, x, op.rstrip("+~"))
    if "+" in op:
        value = editor.insert(y, "Add", value, editor.constant("bias", np.arange(OUT, dtype=np.float32)))
    if "~" in op:
        value = editor.insert(y, "LpNormalization", value)
    y.replace_input_with(0, value)
    return model, editor, y


def _linear(editor: Editor, before: ir.Node, x: ir.Value, op: str) -> ir.Value:
    if op == "Gemm":
        return editor.insert(before, "Gemm", x, editor.constant("w", WEIGHT.T.copy()), transB=1)
    if op == "MatMul":
        return editor.insert(before, "MatMul", x, editor.constant("w", WEIGHT))
    u = editor.insert(before, "QuantizeLinear", x, editor.constant("r", np.float32(0.05)))
    inputs = [
        u,
        editor.constant("w", np.rint(WEIGHT * 40).astype(np.int8)),
        editor.constant("r", np.float32(0.05)),
        editor.constant("scales", np.full(OUT, 1 / 40, np.float32)),
    ]
    raw = editor.insert(before, op, *inputs, domain="com.microsoft")
    return editor.insert(before, "Mul", raw, editor.constant("row", np.float32([[1.5]])))


def run(model: ir.Model) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(1).uniform(0, 1, (3, IN)).astype(np.float32)
    proto = ir.to_proto(model).SerializeToString()
    [y] = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize(
    ("op", "added"),
    [("MatMul", 0), ("MatMul+", 0), ("Gemm", 0), ("MatMulIntegerToFloat+", 0), ("MatMul~", 1)],
)
def test_the_factor_is_applied_once(op: str, added: int) -> None:
    plain, editor, y = graph(op)
    expected = run(plain) * FACTOR
    before = len(plain.graph)
    y.replace_input_with(0, scale_columns(editor, y.inputs[0], y, FACTOR))
    assert run(plain) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len(plain.graph) == before + added


def test_a_value_that_others_read_too_is_left_as_it_is() -> None:
    model, editor, y = graph("MatMul")
    other = editor.insert(y, "Abs", y.inputs[0])
    other.name, other.type = "other", ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(other)
    before = run(model)
    y.replace_input_with(0, scale_columns(editor, y.inputs[0], y, FACTOR))
    assert run(model) == pytest.approx(before * FACTOR, rel=1e-5)
    assert np.array_equal(editor.graph.initializers["w"].const_value.numpy(), WEIGHT)
