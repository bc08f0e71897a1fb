"""What Whisper's two graphs are made of: linear layers, norms, attention in plain products. Knows no layer.

Standard operators only, which every runtime knows; ONNX Runtime fuses biases, residuals and norms by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.editing import Editor

OPSET = 21  # the first whose QuantizeLinear takes blocks
IR_VERSION = 10
EPSILON = 1e-5  # of Whisper's norms, in every checkpoint

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]  # float32, by transformers' names without "model."


class Builder:
    """A graph that grows node by node. Weights are named as the checkpoint names them."""

    def __init__(self, weights: Weights, heads: int) -> None:
        self.model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}), ir_version=IR_VERSION)
        self.editor = Editor(self.model)
        self.weights, self.heads = weights, heads

    def add(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self.editor.insert(None, op, *inputs, **attributes)

    def constant(self, name: str, array: Any) -> ir.Value:
        return self.editor.constant(name, array)

    def output(self, name: str, value: ir.Value, shape: list[int | str]) -> None:
        """float32"""
        value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        self.model.graph.outputs.append(value)

    def linear(self, x: ir.Value, name: str, scale: float = 1.0) -> ir.Value:
        """x W^T + bias, of the module `name`; scale: what both are multiplied with."""
        return self.product(x, name, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), scale)

    def product(
        self, x: ir.Value, name: str, weight: Array, bias: Array | None, scale: float = 1.0
    ) -> ir.Value:
        """weight: float32 [out, in], as torch has it."""
        factor = np.float32(scale)
        out = self.add("MatMul", x, self.constant(f"{name}.weight", (weight * factor).T))
        return out if bias is None else self.add("Add", out, self.constant(f"{name}.bias", bias * factor))

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        parts = [
            self.constant(f"{name}.{kind}", self.weights[f"{name}.{kind}"]) for kind in ("weight", "bias")
        ]
        return self.add("LayerNormalization", x, *parts, axis=-1, epsilon=EPSILON)

    def mlp(self, x: ir.Value, layer: str) -> ir.Value:
        return self.linear(self.add("Gelu", self.linear(x, f"{layer}.fc1")), f"{layer}.fc2")

    def heads_of(self, x: ir.Value) -> ir.Value:
        """[rows, length, channels] -> [rows, length, heads, head_dim]"""
        return self.add(
            "Reshape", x, self.constant(f"shape.heads.{self.heads}", np.array([0, 0, self.heads, -1]))
        )

    def split_heads(self, x: ir.Value, order: tuple[int, ...] = (0, 2, 1, 3)) -> ir.Value:
        """[rows, length, channels] -> [rows, heads, length, head_dim], or that in another order."""
        return self.add("Transpose", self.heads_of(x), perm=list(order))

    def join_heads(self, x: ir.Value) -> ir.Value:
        """[rows, heads, length, head_dim] -> [rows, length, channels]"""
        turned = self.add("Transpose", x, perm=[0, 2, 1, 3])
        return self.add("Reshape", turned, self.constant("shape.joined", np.array([0, 0, -1])))

    def attention(self, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        """q [rows, heads, length, dim], scaled; k [rows, heads, dim, seen]; v [rows, heads, seen, dim].

        Returns [rows, length, channels].
        """
        weights = self.add("Softmax", self.add("MatMul", q, k), axis=-1)
        return self.join_heads(self.add("MatMul", weights, v))
