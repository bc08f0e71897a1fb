"""What a decoder hears in 8 bits: the listener rounds its keys and values, the decoder reads them rounded.

Every step of a row reads all keys and values of its window (18 MB in the smallest Whisper), and with several
rows that is most of a step. GroupQueryAttention reads an int8 cache (8 rows: 0.7 ms a layer, not 2.6, on one
thread): its newest token is the window's last frame, which it writes over itself, so it sees all of them.
It takes one token a row; for the chunk of a prompt the `If` has plain products over what is cast to float32.

As in the KV cache (export.passes.cache), scales are folded away: 1 is the scale of all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.cache import INT8_CACHE, KEY_SCALE, scale_of
from export.passes.columns import scale_columns
from export.passes.editing import MICROSOFT, Branch, Editor, consumers, prune
from export.runner import Array

KINDS = ("key", "value")


def scales_of(maxima: Mapping[str, Array]) -> dict[str, Array]:
    """By the names of the listener's outputs, float32 [heads, head_dim]: what a step of 8 bits stands for."""
    return {name: scale_of(array) for name, array in maxima.items()}


def round_heard(listener: ir.Model, scales: Mapping[str, Array]) -> None:
    """The listener answers in int8."""
    for value in listener.graph.outputs:
        _round_output(Editor(listener), value, scales[value.name])


def hear_rounded(decoder: ir.Model, scales: Mapping[str, Array]) -> None:
    """The decoder reads int8."""
    plan = _plan(decoder)
    for number in range(len(scales) // len(KINDS)):
        layer = _Layer.of(decoder, number)
        _fold(plan.editor, layer, *(scales[f"cross.{number}.{kind}"] for kind in KINDS))
        _replace(plan, layer, decoder)
    prune(decoder)


def _round_output(editor: Editor, value: ir.Value, scale: Array) -> None:
    """Between the layer that makes it and its split into heads."""
    split = value.producer().inputs[0].producer()
    scaled = scale_columns(editor, split.inputs[0], split, 1 / scale.reshape(-1))
    whole, zero = editor.constant("cross.whole", np.float32(1)), editor.constant("cross.zero", np.int8(0))
    split.replace_input_with(0, editor.insert(split, "QuantizeLinear", scaled, whole, zero))
    value.type = ir.TensorType(ir.DataType.INT8)


@dataclass(frozen=True)
class _Layer:
    """A layer's cross-attention as export.speech.decoder builds it."""

    number: int
    keys: ir.Value
    values: ir.Value
    split: ir.Node  # makes heads of q
    queries: ir.Value  # [batch, heads, chunk, dim]
    out: ir.Value  # [batch, chunk, channels]

    @classmethod
    def of(cls, model: ir.Model, number: int) -> _Layer:
        inputs = {value.name: value for value in model.graph.inputs}
        keys, values = (inputs[f"cross.{number}.{kind}"] for kind in KINDS)
        [turned] = [node for node in consumers(keys) if node.op_type == "Transpose"]
        [scores] = consumers(turned.outputs[0])
        [product] = consumers(values)
        [joined] = consumers(consumers(product.outputs[0])[0].outputs[0])
        queries = scores.inputs[0]
        return cls(number, keys, values, queries.producer().inputs[0].producer(), queries, joined.outputs[0])


@dataclass(frozen=True)
class _Plan:
    """What all layers share."""

    editor: Editor
    single: ir.Value  # bool [1]: one token a row
    seqlens: ir.Value  # int32 [batch]
    total: ir.Value  # int32 []
    one: ir.Value  # float32 [1]


def _plan(model: ir.Model) -> _Plan:
    editor, inputs = Editor(model), {value.name: value for value in model.graph.inputs}
    first, frames = next(iter(model.graph)), int(inputs["cross.0.key"].shape[2])
    chunk = editor.insert(first, "Shape", inputs["input_ids"], start=1, end=2)
    last = ir.tensor(np.array([frames - 1], np.int32))
    batch = editor.insert(first, "Shape", inputs["seqlens_k"])
    return _Plan(
        editor,
        editor.insert(first, "Equal", chunk, editor.constant("second", np.array([1]))),
        editor.insert(first, "ConstantOfShape", batch, value=last),
        editor.constant("cross.total", np.array(frames, np.int32)),
        editor.constant("cross.one", np.ones(1, np.float32)),
    )


def _fold(editor: Editor, layer: _Layer, key: Array, value: Array) -> None:
    """q is multiplied with the keys' scales, what attention answers with the values'."""
    scaled = scale_columns(editor, layer.split.inputs[0], layer.split, key.reshape(-1))
    layer.split.replace_input_with(0, scaled)
    readers = consumers(layer.out)
    whole = editor.insert(
        readers[0], "Mul", layer.out, editor.constant(f"cross.{layer.number}.value.scale", value.reshape(-1))
    )
    for reader in readers:
        reader.replace_input_with(list(reader.inputs).index(layer.out), whole)


def _replace(plan: _Plan, layer: _Layer, model: ir.Model) -> None:
    """The products by an If, which answers the keys and values as well: GroupQueryAttention insists on it."""
    heard = (layer.keys, layer.values)
    for value in heard:
        value.type = ir.TensorType(ir.DataType.INT8)
    branches = {"then_branch": _fused(plan, layer), "else_branch": _plain(plan, layer)}
    out, *kept = plan.editor.insert_many(layer.out.producer(), "If", [plan.single], 3, **branches)
    plan.editor.take_over(layer.out, out)
    for kind, source, value in zip(KINDS, heard, kept, strict=True):
        value.name, value.type, value.shape = f"heard.{layer.number}.{kind}", source.type, source.shape
        model.graph.outputs.append(value)


def _fused(plan: _Plan, layer: _Layer) -> ir.Graph:
    branch, heads = Branch(f"hear_{layer.number}"), int(layer.keys.shape[1])
    newest = [_newest(branch, plan.editor, whole) for whole in (layer.keys, layer.values)]
    inputs = [layer.split.inputs[0], *newest, layer.keys, layer.values, plan.seqlens, plan.total]
    settings: dict[str, Any] = {"num_heads": heads, "kv_num_heads": heads, "scale": 1.0, **INT8_CACHE}
    inputs += [*[None] * (KEY_SCALE - len(inputs)), plan.one, plan.one]
    return branch.graph(branch.add_many("GroupQueryAttention", inputs, 3, domain=MICROSOFT, **settings))


def _newest(branch: Branch, editor: Editor, whole: ir.Value) -> ir.Value:
    """The last frame of [batch, heads, frames, dim] as a token's: float32 [batch, 1, heads * dim]."""
    frames = int(whole.shape[2])
    places = [("last", frames - 1), ("end", frames), ("axis", 2)]
    bounds = [editor.constant(f"cross.{name}", np.array([number])) for name, number in places]
    joined = editor.constant("cross.joined", np.array([0, 1, -1]))
    token = branch.add("Reshape", branch.add("Slice", whole, *bounds), joined)
    return branch.add("Cast", token, to=ir.DataType.FLOAT)


def _plain(plan: _Plan, layer: _Layer) -> ir.Graph:
    branch = Branch(f"hear_chunk_{layer.number}")
    keys, values = (branch.add("Cast", whole, to=ir.DataType.FLOAT) for whole in (layer.keys, layer.values))
    scores = branch.add("MatMul", layer.queries, branch.add("Transpose", keys, perm=[0, 1, 3, 2]))
    product = branch.add("MatMul", branch.add("Softmax", scores, axis=-1), values)
    turned = branch.add("Transpose", product, perm=[0, 2, 1, 3])
    out = branch.add("Reshape", turned, plan.editor.constant("shape.joined", np.array([0, 0, -1])))
    return branch.graph([out, branch.add("Identity", layer.keys), branch.add("Identity", layer.values)])
