"""Attention of a chunk on standard operators; a decode step keeps GroupQueryAttention. One int8 cache.

GroupQueryAttention decodes fastest from an int8 cache and prefills slowest from it (docs/architecture.md), so
each layer becomes an `If`: then, with one new token a row, the fused operator; else, for the rows of a chunk,

    rotate q and k;  round k and v to int8 and TensorScatter them into the cache;
    Attention(q * key scale, int8 keys, int8 values) * value scale

Scales sit on q and on the result, so that the cache's past is cast and nothing more. Rows of a chunk have one
past (engines/batch.py), hence one causal mask for all rows and for all layers with the same window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.editing import Branch, Editor

MASKED = np.float32(-1e9)


@dataclass(frozen=True)
class Heads:
    """Of one attention layer."""

    query: int
    kv: int
    dim: int

    @property
    def widths(self) -> list[int]:
        """Channels of q, k and v."""
        return [self.query * self.dim, self.kv * self.dim, self.kv * self.dim]


@dataclass(frozen=True)
class Plan:
    """What all layers' prefill branches share, computed once a run; empty in a decode step."""

    decodes: ir.Value  # bool [1]
    past: ir.Value  # int64 [batch]: where the chunk's keys are written
    positions: ir.Value  # int64 [batch, chunk]
    length: ir.Value  # int64 [1]: past + chunk
    masks: dict[int, ir.Value]  # by window, -1 for none: float32 [chunk, length], added to the scores


def plan_prefill(editor: Editor, windows: set[int]) -> Plan:
    """Insert the plan at the graph's beginning."""
    first = next(iter(editor.graph))
    inputs = {value.name: value for value in editor.graph.inputs}
    shape = editor.insert(first, "Shape", inputs["input_ids"])
    chunk = editor.insert(
        first, "Slice", shape, editor.constant("first", [1]), editor.constant("second", [2])
    )
    decodes = editor.insert(first, "Equal", chunk, editor.constant("first", [1]))
    order = sorted(windows)
    nothing, something = Branch("no_plan"), Branch("plan")
    empty = [nothing.constant(np.zeros(size, np.int64)) for size in ((1,), (1, 1), (1,))]
    masks = [nothing.constant(np.zeros((1, 1), np.float32)) for _ in order]
    branches = {
        "then_branch": nothing.graph([*empty, *masks]),
        "else_branch": something.graph(_planned(something, editor, shape, chunk, inputs["total_seq"], order)),
    }
    past, positions, length, *masks = editor.insert_many(first, "If", [decodes], 3 + len(order), **branches)
    return Plan(decodes, past, positions, length, dict(zip(order, masks, strict=True)))


def _planned(
    branch: Branch, editor: Editor, shape: ir.Value, chunk: ir.Value, total: ir.Value, windows: list[int]
) -> list[ir.Value]:
    zero, one, column = (editor.constant(f"plan.{n}", np.array(n)) for n in (0, 1, [1]))
    flat = editor.constant("plan.flat", [-1])
    length = branch.add("Reshape", branch.add("Cast", total, to=ir.DataType.INT64), flat)
    past = branch.add("Sub", length, chunk)
    rows = branch.add("Slice", shape, editor.constant("zeroth", [0]), editor.constant("first", [1]))
    columns = branch.add("Range", zero, branch.add("Squeeze", length), one)
    queries = branch.add("Add", branch.add("Range", zero, branch.add("Squeeze", chunk), one), past)
    standing = branch.add("Unsqueeze", queries, column)
    positions = branch.add("Expand", queries, shape)
    masks = [_mask(branch, editor, standing, columns, window) for window in windows]
    return [branch.add("Expand", past, rows), positions, length, *masks]


def _mask(branch: Branch, editor: Editor, queries: ir.Value, keys: ir.Value, window: int) -> ir.Value:
    """0 where the query at a row sees the key at a column: those up to itself, `window` of them at most."""
    seen = branch.add("LessOrEqual", keys, queries)
    if window > 0:
        oldest = branch.add("Sub", queries, editor.constant(f"window.{window}", np.array(window)))
        seen = branch.add("And", seen, branch.add("Greater", keys, oldest))
    return branch.add(
        "Where", seen, editor.constant("shown", np.float32(0)), editor.constant("masked", MASKED)
    )


@dataclass(frozen=True)
class Layer:
    """One GroupQueryAttention and what its prefill branch needs."""

    node: ir.Node
    heads: Heads
    scales: dict[str, np.ndarray[Any, Any]]  # "key" and "value": float32 [kv heads, dim]
    index: int


def prefill_branch(editor: Editor, layer: Layer, plan: Plan) -> ir.Graph:
    """Outputs: [batch, chunk, heads * dim] and the two caches."""
    branch = Branch(f"prefill_{layer.index}")
    node, heads = layer.node, layer.heads
    query, key, value = _parts(branch, editor, node, heads)
    query, key = (_rotated(branch, node, plan, x, n) for x, n in ((query, heads.query), (key, heads.kv)))
    groups = heads.query // heads.kv
    scale = {kind: np.repeat(array, groups, axis=0).reshape(-1) for kind, array in layer.scales.items()}
    query = branch.add("Mul", query, editor.constant(f"kv.{layer.index}.query", scale["key"]))
    keys = _cached(branch, editor, layer, plan, "key", key)
    values = _cached(branch, editor, layer, plan, "value", value)
    mixed = branch.add(
        "Attention",
        _by_head(branch, editor, query, heads.query, heads.dim),
        keys[1],
        values[1],
        plan.masks[node.attributes.get_int("local_window_size", -1)],
        scale=node.attributes.get_float("scale", 0.0) or heads.dim**-0.5,
        softcap=node.attributes.get_float("softcap", 0.0),
    )
    joined = branch.add(
        "Reshape",
        branch.add("Transpose", mixed, perm=[0, 2, 1, 3]),
        editor.constant(f"joined.{heads.widths[0]}", [0, 0, heads.widths[0]]),
    )
    out = branch.add("Mul", joined, editor.constant(f"kv.{layer.index}.out", scale["value"]))
    return branch.graph([out, keys[0], values[0]])


def _parts(branch: Branch, editor: Editor, node: ir.Node, heads: Heads) -> list[ir.Value]:
    """q, k and v [batch, chunk, heads * dim], which may come in one tensor."""
    given = list(node.inputs[:3])
    if given[1] is None:
        sizes = editor.constant(f"qkv.{heads.query}.{heads.kv}.{heads.dim}", heads.widths)
        return branch.add_many("Split", [given[0], sizes], 3, axis=-1)
    return given


def _rotated(branch: Branch, node: ir.Node, plan: Plan, x: ir.Value, heads: int) -> ir.Value:
    if node.attributes.get_int("do_rotary", 0) != 1:
        return x
    cos, sin = node.inputs[7], node.inputs[8]
    return branch.add(
        "RotaryEmbedding",
        x,
        cos,
        sin,
        plan.positions,
        num_heads=heads,
        interleaved=node.attributes.get_int("rotary_interleaved", 0),
        rotary_embedding_dim=2 * int(cos.shape[-1]),
    )


def _cached(
    branch: Branch, editor: Editor, layer: Layer, plan: Plan, kind: str, x: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Round x [batch, chunk, kv heads * dim] into the cache; (the cache, all of it so far as float32)."""
    heads, past = layer.heads, layer.node.inputs[3 if kind == "key" else 4]
    inverse = (1 / layer.scales[kind]).astype(np.float32).reshape(-1)
    scaled = branch.add("Mul", x, editor.constant(f"kv.{layer.index}.{kind}.inverse", inverse))
    whole = editor.constant("kv.whole", np.float32(1))
    rounded = branch.add("QuantizeLinear", scaled, whole, editor.constant("kv.zero", np.int8(0)))
    parts = _by_head(branch, editor, rounded, heads.kv, heads.dim)
    cache = branch.add("TensorScatter", past, parts, plan.past, axis=2)
    start, axis = editor.constant("zeroth", [0]), editor.constant("second", [2])
    filled = branch.add("Slice", cache, start, plan.length, axis)
    return cache, branch.add("Cast", filled, to=ir.DataType.FLOAT)


def _by_head(branch: Branch, editor: Editor, x: ir.Value, heads: int, dim: int) -> ir.Value:
    """[batch, chunk, heads * dim] to [batch, heads, chunk, dim]."""
    split = branch.add("Reshape", x, editor.constant(f"split.{heads}.{dim}", [0, 0, heads, dim]))
    return branch.add("Transpose", split, perm=[0, 2, 1, 3])
