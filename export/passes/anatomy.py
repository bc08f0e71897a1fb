"""Where things are in a decoder graph: attentions, linear layers, the head, the embedding.

Matching is by structure, never by name; what is not found is an ExportError that says what was looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from basert.errors import ExportError
from export.passes.editing import array_of, consumers, data_of, set_array

ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Tanh", "Cast", "Clip"}
NORMS = {"RMSNormalization": 1, "SimplifiedLayerNormalization": 1, "SkipSimplifiedLayerNormalization": 2}
"""Normalisations without bias -> index of their weight input."""
CENTRED = {"LayerNormalization": 1}  # those that subtract the mean; a bias follows the weight


@dataclass(frozen=True)
class Linear:
    """A product with a constant matrix: MatMul(x, w[in, out]) or Gemm(x, w[out, in], transB=1)."""

    node: ir.Node

    @property
    def source(self) -> ir.Value:
        return self.node.inputs[0]

    @property
    def weight(self) -> ir.Value:
        return self.node.inputs[1]

    @property
    def transposed(self) -> bool:
        return bool(self.node.op_type == "Gemm")

    @property
    def name(self) -> str:
        return str(self.weight.name)

    def matrix(self) -> np.ndarray[Any, Any]:
        """float32 [in, out]; a view, do not write to it."""
        array = data_of(self.weight)
        return array.T if self.transposed else array

    def set_matrix(self, matrix: np.ndarray[Any, Any]) -> None:
        """float32 [in, out]."""
        set_array(self.weight, matrix.T if self.transposed else matrix)


def linears(model: ir.Model) -> list[Linear]:
    """Every linear layer, in the order of execution."""
    return [Linear(node) for node in model.graph if _is_linear(node)]


def token_linears(model: ir.Model) -> list[Linear]:
    """Those of an encoder that see every token; what comes behind the pooling is a Gemm."""
    return [linear for linear in linears(model) if not linear.transposed]


def _is_linear(node: ir.Node) -> bool:
    if node.op_type == "Gemm":
        return node.attributes.get_int("transB", 0) == 1 and _is_matrix(node.inputs[1])
    return bool(node.op_type == "MatMul") and _is_matrix(node.inputs[1])


def _is_matrix(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 2


def attentions(model: ir.Model) -> list[ir.Node]:
    """The GroupQueryAttention nodes, layer by layer."""
    found = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    if not found:
        raise ExportError(
            "The exporter built this architecture without GroupQueryAttention; basert cannot serve it."
        )
    return found


def head(model: ir.Model) -> Linear:
    """The linear layer that makes the logits; soft caps and scales may follow it."""
    node = _output(model, "logits").producer()
    while node is not None and not _is_linear(node):
        moving = [value for value in node.inputs if value is not None and not is_constant(value)]
        if node.op_type not in ELEMENTWISE or len(moving) != 1:
            break
        node = moving[0].producer()
    if node is None or not _is_linear(node):
        raise ExportError(
            "The exported graph's logits do not come from a linear layer; basert cannot serve it."
        )
    return Linear(node)


def embedding(model: ir.Model) -> ir.Node:
    """The Gather that looks tokens up."""
    ids = next(value for value in model.graph.inputs if value.name == "input_ids")
    found = [node for node in consumers(ids) if node.op_type == "Gather" and node.inputs[1] is ids]
    if len(found) != 1 or array_of(found[0].inputs[0]) is None:
        raise ExportError("The exported graph has no single token embedding; basert cannot serve it.")
    return found[0]


def is_constant(value: ir.Value | None) -> bool:
    """True when nothing that changes between runs reaches the value."""
    if value is None or value.is_initializer():
        return True
    node = value.producer()
    return node is not None and all(is_constant(source) for source in node.inputs)


def norm_weight(value: ir.Value) -> ir.Value | None:
    """The constant weight of the normalisation that made `value`; None when another node made it."""
    node = value.producer()
    found = NORMS | CENTRED
    if node is None or node.op_type not in found or value is not node.outputs[0]:
        return None
    weight = node.inputs[found[node.op_type]]
    return weight if weight.is_initializer() else None


def norm_bias(value: ir.Value) -> ir.Value | None:
    """The constant bias of the normalisation that made `value`, if it has one."""
    node = value.producer()
    return node.inputs[2] if node.op_type in CENTRED and len(node.inputs) > 2 else None


def _output(model: ir.Model, name: str) -> ir.Value:
    for value in model.graph.outputs:
        if value.name == name:
            return value
    raise ExportError(f"The exported graph has no output {name!r}; basert cannot serve it.")
