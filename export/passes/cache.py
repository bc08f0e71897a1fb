"""The KV cache in 8 bits: int8 = round(x / scale), a scale for every layer, head and channel.

It takes a quarter of the memory, and a decode step reads it about twice as fast. Scales come from the largest
values that calibration text left in the cache, with some headroom; what is larger saturates.

The scales are folded away, so that the cache holds what the graph computes, rounded, and attention runs with
one scale, 1: q is multiplied with the key's, k and v are divided by theirs, in the columns of the layers that
make them where nothing lies between (exact: columns have scales of their own), and the result is multiplied
with the value's. Rotation mixes two channels, which therefore share a scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import attentions
from export.passes.columns import scale_columns
from export.passes.editing import Branch, Editor, consumers, prune
from export.passes.prefill import Heads, Layer, Plan, plan_prefill, prefill_branch

HEADROOM = 1.1
SMALLEST = 1e-6  # of a scale, for channels that calibration never saw
COS, KEY_SCALE = 7, 12  # GroupQueryAttention's inputs; the value's scale comes after the key's

INT8_CACHE = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}

Array = np.ndarray[Any, Any]


def round_cache(model: ir.Model, maxima: Mapping[str, Array]) -> None:
    """maxima: by "{layer}.key" and "{layer}.value", float32 [kv_heads, head_dim]."""
    editor, nodes = Editor(model), attentions(model)
    plan = plan_prefill(editor, {node.attributes.get_int("local_window_size", -1) for node in nodes})
    for index, node in enumerate(nodes):
        key, value = scale_of(_by_pair(maxima[f"{index}.key"], node)), scale_of(maxima[f"{index}.value"])
        heads = Heads(node.attributes.get_int("num_heads"), *key.shape)
        _fold(editor, node, heads, key, value)
        _replace(editor, Layer(node, heads, index), plan)
    prune(model)


def scale_of(maxima: Array) -> Array:
    """What 127 stands for, by 127: float32, of the shape of `maxima`."""
    return np.maximum(maxima * np.float32(HEADROOM / 127), SMALLEST).astype(np.float32)


def _by_pair(maxima: Array, node: ir.Node) -> Array:
    """The larger one of each two channels that rotation mixes."""
    if node.attributes.get_int("do_rotary", 0) != 1:
        return maxima
    half, paired = int(node.inputs[COS].shape[-1]), maxima.copy()
    rotated = slice(0, 2 * half)
    shape, axis = ((half, 2), -1) if node.attributes.get_int("rotary_interleaved", 0) else ((2, half), -2)
    pairs = maxima[:, rotated].reshape(len(maxima), *shape)
    paired[:, rotated] = np.broadcast_to(pairs.max(axis, keepdims=True), pairs.shape).reshape(len(maxima), -1)
    return paired


def _fold(editor: Editor, node: ir.Node, heads: Heads, key: Array, value: Array) -> None:
    """Scale what GroupQueryAttention reads and what it answers."""
    groups = heads.query // heads.kv
    factors = [np.repeat(key, groups, axis=0), 1 / key, 1 / value]
    if node.inputs[1] is None:  # q, k, v in one
        factors = [np.concatenate(factors)]
    for index, factor in enumerate(factors):
        scaled = scale_columns(editor, node.inputs[index], node, factor.reshape(-1).astype(np.float32))
        node.replace_input_with(index, scaled)
    out, name = node.outputs[0], f"{node.name}.value.scale"
    scale = editor.constant(name, np.repeat(value, groups, axis=0).reshape(-1))
    following = next(user for user in editor.graph if user in consumers(out))
    scaled = editor.insert(following, "Mul", out, scale)
    for user in consumers(out):
        for position, source in enumerate(user.inputs):
            if source is out and user is not scaled.producer():
                user.replace_input_with(position, scaled)


def _replace(editor: Editor, layer: Layer, plan: Plan) -> None:
    node = layer.node
    for past, present in zip(node.inputs[3:5], node.outputs[1:3], strict=True):
        past.type = present.type = ir.TensorType(ir.DataType.INT8)
    branches = {
        "then_branch": _fused_branch(editor, layer),
        "else_branch": prefill_branch(editor, layer, plan),
    }
    for old, new in zip(
        node.outputs, editor.insert_many(node, "If", [plan.fused], 3, **branches), strict=True
    ):
        editor.take_over(old, new)


def _fused_branch(editor: Editor, layer: Layer) -> ir.Graph:
    branch, node = Branch(f"decode_{layer.index}"), layer.node
    one = editor.constant("kv.one", np.ones(1, np.float32))
    inputs = [*[*node.inputs, *[None] * KEY_SCALE][:KEY_SCALE], one, one]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    attributes |= INT8_CACHE
    return branch.graph(branch.add_many(node.op_type, inputs, 3, domain=node.domain, **attributes))
