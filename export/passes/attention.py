"""Attention on standard operators: MatMul, Softmax, MatMul. Folds into its projections what can be, exactly.

scores * s       the queries' weights and bias are multiplied with s
keys' bias       adds the same number to all scores of a query, which Softmax does not see: dropped
values' bias     every average of values has it: it goes through the output projection into its bias
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, linears
from export.passes.editing import array_of, consumers, data_of, prune, set_array

MOVES = {"Reshape", "Transpose"}  # what changes a tensor's layout only


@dataclass(frozen=True)
class Projection:
    """A linear layer with its bias, if it has one, as its reader sees it."""

    linear: Linear
    bias: ir.Node | None  # the Add

    def bias_array(self) -> ir.Value:
        assert self.bias is not None
        return self.bias.inputs[1]


@dataclass(frozen=True)
class Attention:
    queries: Projection | None  # None: something else than layout lies between (a rotary embedding)
    keys: Projection | None
    values: Projection | None
    output: Projection | None
    scale: ir.Node | None  # Mul(scores, number)


def encoder_attentions(model: ir.Model) -> list[Attention]:
    """Every MatMul, Softmax, MatMul of the graph, in the order of execution."""
    layers = {linear.node: linear for linear in linears(model)}
    found = [_attention(node, layers) for node in model.graph if node.op_type == "Softmax"]
    return [attention for attention in found if attention is not None]


def fold_attention(model: ir.Model) -> None:
    for attention in encoder_attentions(model):
        _fold_scale(attention)
        _drop_bias_of_keys(attention)
        _move_bias_of_values(attention)
    prune(model)


def _attention(softmax: ir.Node, layers: dict[ir.Node, Linear]) -> Attention | None:
    node, scale = softmax.inputs[0].producer(), None
    while node is not None and node.op_type in ("Add", "Mul", "Div"):
        if node.op_type != "Add":
            scale = node if node.op_type == "Mul" and _is_number(node.inputs[1]) else None
        node = node.inputs[0].producer()
    readers = consumers(softmax.outputs[0])
    if node is None or node.op_type != "MatMul" or node in layers or len(readers) != 1:
        return None
    if readers[0].op_type != "MatMul" or readers[0].inputs[0] is not softmax.outputs[0]:
        return None
    queries, keys = (_projection(value, layers) for value in node.inputs)
    values = _projection(readers[0].inputs[1], layers)
    return Attention(queries, keys, values, _output(readers[0], layers), scale)


def _projection(value: ir.Value, layers: dict[ir.Node, Linear]) -> Projection | None:
    """The linear layer behind layout changes; None when it has other readers, or there is something else."""
    node, bias = value.producer(), None
    while node is not None and node.op_type in MOVES and len(consumers(node.outputs[0])) == 1:
        node = node.inputs[0].producer()
    if node is not None and node.op_type == "Add" and array_of(node.inputs[1]) is not None:
        node, bias = node.inputs[0].producer(), node
    last = bias or node
    if node not in layers or last is None or len(consumers(last.outputs[0])) != 1:
        return None
    if len(consumers(node.outputs[0])) != 1 or len(consumers(layers[node].weight)) != 1:
        return None
    if bias is not None and len(consumers(bias.inputs[1])) != 1:
        return None
    return Projection(layers[node], bias)


def _output(context: ir.Node, layers: dict[ir.Node, Linear]) -> Projection | None:
    readers = consumers(context.outputs[0])
    while len(readers) == 1 and readers[0].op_type in MOVES:
        readers = consumers(readers[0].outputs[0])
    if len(readers) != 1 or readers[0] not in layers:
        return None
    node, bias = readers[0], None
    following = consumers(node.outputs[0])
    if len(following) == 1 and following[0].op_type == "Add" and array_of(following[0].inputs[1]) is not None:
        bias = following[0] if len(consumers(following[0].inputs[1])) == 1 else None
    return Projection(layers[node], bias)


def _is_number(value: ir.Value) -> bool:
    array = array_of(value)
    return array is not None and array.size == 1


def _fold_scale(attention: Attention) -> None:
    queries, scale = attention.queries, attention.scale
    if queries is None or scale is None:
        return
    factor = data_of(scale.inputs[1]).reshape(())
    queries.linear.set_matrix(queries.linear.matrix() * factor)
    if queries.bias is not None:
        set_array(queries.bias_array(), data_of(queries.bias_array()) * factor)
    scale.outputs[0].replace_all_uses_with(scale.inputs[0])


def _drop_bias_of_keys(attention: Attention) -> None:
    keys = attention.keys
    if keys is not None and keys.bias is not None:
        keys.bias.outputs[0].replace_all_uses_with(keys.bias.inputs[0])


def _move_bias_of_values(attention: Attention) -> None:
    values, output = attention.values, attention.output
    if values is None or values.bias is None or output is None or output.bias is None:
        return
    bias = data_of(values.bias_array())
    if bias.size != output.linear.matrix().shape[0]:
        return
    moved = np.asarray(bias @ output.linear.matrix(), np.float32)
    set_array(output.bias_array(), data_of(output.bias_array()) + moved)
    values.bias.outputs[0].replace_all_uses_with(values.bias.inputs[0])
