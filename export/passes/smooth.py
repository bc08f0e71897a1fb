"""SmoothQuant, folded exactly: an activation's loud channels are turned down, the weights that read them up.

    norm -> q, k, v          norm -> gate, up          final norm -> head (and back where tokens are embedded)
    v    -> output           up   -> down              (alpha 0.5, one factor per channel, geometric mean 1)

In fp32 the graph computes what it did. A layer whose input comes from elsewhere keeps its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, attentions, embedding, linears, norm_weight
from export.passes.editing import Editor, array_of, consumers, data_of, set_array

Array = np.ndarray[Any, Any]


def smooth(model: ir.Model, maxima: Mapping[str, Array]) -> None:
    """`maxima`: the largest absolute input of each channel, by the name of the weight that reads it."""
    by_node = {linear.node: linear for linear in linears(model)}
    by_source: dict[ir.Value, list[Linear]] = {}
    for linear in by_node.values():
        by_source.setdefault(linear.source, []).append(linear)
    for source, readers in by_source.items():
        if len(readers) == len(consumers(source)):
            _smooth_norm(model, source, readers, maxima[readers[0].name])
    for linear in by_node.values():
        if len(consumers(linear.source)) == 1:
            _smooth_product(linear, by_node, maxima[linear.name])
    for node in attentions(model):
        _smooth_values(node, by_node, maxima)


def factors(activation: Array, weight: Array) -> Array:
    """What to divide each channel by, from its largest activation and weight; float32 [channels]."""
    balance = np.sqrt(np.maximum(activation, 1e-5) / np.maximum(weight, 1e-5))
    return np.asarray(np.clip(balance / np.exp(np.log(balance).mean()), 1e-3, 1e3), np.float32)


def _smooth_norm(model: ir.Model, source: ir.Value, readers: list[Linear], activation: Array) -> None:
    weight = norm_weight(source)
    if weight is None or len(consumers(weight)) != 1:
        return
    factor = factors(activation, np.max([_largest_rows(linear) for linear in readers], axis=0))
    set_array(weight, data_of(weight) / factor)
    for linear in readers:
        _scale_rows(linear, factor)
        if len(consumers(linear.weight)) > 1:
            _unscale_embedding(model, linear, factor)


def _unscale_embedding(model: ir.Model, head: Linear, factor: Array) -> None:
    """The head's matrix is the embedding's too: embedded tokens are divided by its factor."""
    node = embedding(model)
    assert node.inputs[0] is head.weight
    editor = Editor(model)
    users = consumers(node.outputs[0])
    plain = editor.insert(users[0], "Mul", node.outputs[0], editor.constant("embedding.unsmooth", 1 / factor))
    for user in users:
        for index, value in enumerate(user.inputs):
            if value is node.outputs[0]:
                user.replace_input_with(index, plain)


def _smooth_product(down: Linear, by_node: Mapping[ir.Node, Linear], activation: Array) -> None:
    """down reads Mul(act(gate), up): up's columns can be divided."""
    product = down.source.producer()
    if product is None or product.op_type != "Mul":
        return
    factor = factors(activation, _largest_rows(down))
    for value in product.inputs:
        if len(consumers(value)) == 1 and _divide_last_columns(value, by_node, factor):
            _scale_rows(down, factor)
            return


def _smooth_values(node: ir.Node, by_node: Mapping[ir.Node, Linear], maxima: Mapping[str, Array]) -> None:
    """The output projection reads averages of v: one factor per key-value channel, the same for its group."""
    readers = consumers(node.outputs[0])
    while len(readers) == 1 and readers[0].op_type in ("Flatten", "Gather"):  # the last layer's chosen rows
        readers = consumers(readers[0].outputs[0])
    output = by_node.get(readers[0])
    if output is None or len(readers) != 1:
        return
    heads, kv_heads = node.attributes["num_heads"].as_int(), node.attributes["kv_num_heads"].as_int()
    grouped = (kv_heads, heads // kv_heads, output.matrix().shape[0] // heads)
    activation, weight = maxima[output.name].reshape(grouped), _largest_rows(output).reshape(grouped)
    factor = factors(activation.max(1).reshape(-1), weight.max(1).reshape(-1))
    values = node.inputs[0] if node.inputs[2] is None else node.inputs[2]  # packed: q, k, v side by side
    if _divide_last_columns(values, by_node, factor):
        spread = np.broadcast_to(factor.reshape(kv_heads, 1, -1), grouped)
        _scale_rows(output, spread.reshape(-1))


def _divide_last_columns(value: ir.Value, by_node: Mapping[ir.Node, Linear], factor: Array) -> bool:
    """Divide the last columns of the linear layer that makes `value`, bias included; False when none does.

    Of a Split's outputs only the last one is followed: the others are not made by the last columns.
    """
    node, bias = value.producer(), None
    if node is not None and node.op_type == "Split" and value is node.outputs[-1]:
        node = node.inputs[0].producer()
    if node is not None and node.op_type == "Add" and array_of(node.inputs[1]) is not None:
        node, bias = node.inputs[0].producer(), node.inputs[1]
    if node not in by_node:
        return False
    linear = by_node[node]
    ones = np.ones(linear.matrix().shape[1] - factor.size, np.float32)
    divisor = np.concatenate([ones, factor])
    _set_matrix(linear, linear.matrix() / divisor)
    if bias is not None:
        set_array(bias, data_of(bias) / divisor)
    return True


def _scale_rows(linear: Linear, factor: Array) -> None:
    _set_matrix(linear, linear.matrix() * factor[:, None])


def _set_matrix(linear: Linear, matrix: Array) -> None:
    set_array(linear.weight, matrix.T if linear.transposed else matrix)


def _largest_rows(linear: Linear) -> Array:
    """The largest absolute weight of each input channel."""
    return np.asarray(np.abs(linear.matrix()).max(axis=1))
