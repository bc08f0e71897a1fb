"""Attention of a chunk on standard operators; a decode step keeps GroupQueryAttention. One int8 cache.

GroupQueryAttention decodes fastest from an int8 cache and prefills slowest from it (docs/architecture.md), so
each layer becomes an `If`: then, with few new tokens a row (FUSED), the fused operator, whose rows get the
bits of single decode steps however many come at once; else, for the rows of a chunk,

    rotate q and k;  round k and v to int8 and TensorScatter them into the cache;
    Attention(q, int8 keys, int8 values)

Scales were folded away before (cache.py), so that the cache's past is cast and nothing more. Rows of a chunk
have one past (engines/batch.py), hence one causal mask for all rows and for all layers with the same window.
A long chunk's queries go in BLOCKS, each over the keys that it can see: a third less arithmetic at the start
of a text. A position's bits depend on neither chunk nor block (the kernel's do not, from two rows on).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.passes.editing import Branch, Editor

MASKED = np.float32(-1e9)
FUSED = 16  # most new tokens a row that GroupQueryAttention computes
BLOCKS = 4
LONG = 128  # tokens of a chunk that is worth cutting into blocks


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

    fused: ir.Value  # bool [1]
    long: ir.Value  # bool [1]
    past: ir.Value  # int64 [batch]: where the chunk's keys are written
    positions: ir.Value  # int64 [batch, chunk]
    starts: list[ir.Value]  # int64 [1]: first query of each block, and the chunk's length
    lengths: list[ir.Value]  # int64 [1]: keys that each block's last query sees; the last: past + chunk
    masks: dict[int, ir.Value]  # by window, -1 for none: float32 [chunk, length], added to the scores
    parts: dict[int, list[ir.Value]]  # the masks of each block: float32 [queries, keys]

    @property
    def length(self) -> ir.Value:
        return self.lengths[-1]


def plan_prefill(editor: Editor, windows: set[int]) -> Plan:
    """Insert the plan at the graph's beginning."""
    first = next(iter(editor.graph))
    inputs = {value.name: value for value in editor.graph.inputs}
    shape = editor.insert(first, "Shape", inputs["input_ids"])
    chunk = editor.insert(
        first, "Slice", shape, editor.constant("first", [1]), editor.constant("second", [2])
    )
    fused = editor.insert(first, "LessOrEqual", chunk, editor.constant("fused", [FUSED]))
    long = editor.insert(first, "Greater", chunk, editor.constant("long", [LONG]))
    order = sorted(windows)
    nothing, something = Branch("no_plan"), Branch("plan")
    planned = _planned(something, editor, shape, chunk, inputs["total_seq"], order)
    sizes = [(1,), (1, 1), *[(1,)] * (2 * BLOCKS + 1), *[(1, 1)] * (len(planned) - 2 * BLOCKS - 3)]
    dtypes = [np.int64] * (2 * BLOCKS + 3) + [np.float32] * (len(planned) - 2 * BLOCKS - 3)
    empty = [nothing.constant(np.zeros(size, dtype)) for size, dtype in zip(sizes, dtypes, strict=True)]
    branches = {"then_branch": nothing.graph(empty), "else_branch": something.graph(planned)}
    past, positions, *rest = editor.insert_many(first, "If", [fused], len(planned), **branches)
    starts, lengths, masks = rest[: BLOCKS + 1], rest[BLOCKS + 1 : 2 * BLOCKS + 1], rest[2 * BLOCKS + 1 :]
    whole, parts = masks[: len(order)], masks[len(order) :]
    cut = {window: parts[i * BLOCKS : (i + 1) * BLOCKS] for i, window in enumerate(order)}
    return Plan(fused, long, past, positions, starts, lengths, dict(zip(order, whole, strict=True)), cut)


def _planned(
    branch: Branch, editor: Editor, shape: ir.Value, chunk: ir.Value, total: ir.Value, windows: list[int]
) -> list[ir.Value]:
    """The fields of Plan but the first two, in their order."""
    zero, one, column = (editor.constant(f"plan.{n}", np.array(n)) for n in (0, 1, [1]))
    flat = editor.constant("plan.flat", [-1])
    length = branch.add("Reshape", branch.add("Cast", total, to=ir.DataType.INT64), flat)
    past = branch.add("Sub", length, chunk)
    rows = branch.add("Slice", shape, editor.constant("zeroth", [0]), editor.constant("first", [1]))
    columns = branch.add("Range", zero, branch.add("Squeeze", length), one)
    queries = branch.add("Add", branch.add("Range", zero, branch.add("Squeeze", chunk), one), past)
    standing = branch.add("Unsqueeze", queries, column)
    positions = branch.add("Expand", queries, shape)
    starts, lengths = _blocks(branch, editor, chunk, past)
    masks = [_mask(branch, editor, standing, columns, window) for window in windows]
    both = editor.constant("plan.both", [0, 1])
    parts = [
        _corner(branch, editor, mask, starts[i], starts[i + 1], lengths[i], both)
        for mask in masks
        for i in range(BLOCKS)
    ]
    return [branch.add("Expand", past, rows), positions, *starts, *lengths, *masks, *parts]


def _blocks(
    branch: Branch, editor: Editor, chunk: ir.Value, past: ir.Value
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Plan.starts and Plan.lengths: BLOCKS even parts, the last one what is left."""
    size = branch.add("Div", chunk, editor.constant("blocks", [BLOCKS]))
    starts = [editor.constant("zeroth", [0]), size]
    starts += [branch.add("Mul", size, editor.constant(f"block.{i}", [i])) for i in range(2, BLOCKS)]
    return [branch.add("Identity", starts[0]), *starts[1:], branch.add("Identity", chunk)], [
        branch.add("Add", past, end) for end in (*starts[1:], chunk)
    ]


def _corner(
    branch: Branch,
    editor: Editor,
    mask: ir.Value,
    start: ir.Value,
    end: ir.Value,
    keys: ir.Value,
    both: ir.Value,
) -> ir.Value:
    """mask[start:end, :keys]"""
    starts = branch.add("Concat", start, editor.constant("zeroth", [0]), axis=0)
    return branch.add("Slice", mask, starts, branch.add("Concat", end, keys, axis=0), both)


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
    index: int


def prefill_branch(editor: Editor, layer: Layer, plan: Plan) -> ir.Graph:
    """Outputs: [batch, chunk, heads * dim] and the two caches."""
    branch = Branch(f"prefill_{layer.index}")
    node, heads = layer.node, layer.heads
    query, key, value = _parts(branch, editor, node, heads)
    query, key = (_rotated(branch, node, plan, x, n) for x, n in ((query, heads.query), (key, heads.kv)))
    query = _by_head(branch, editor, query, heads.query, heads.dim)
    caches = [
        _cached(branch, editor, layer, plan, node.inputs[index], x) for index, x in ((3, key), (4, value))
    ]
    window = node.attributes.get_int("local_window_size", -1)
    whole, blocks = Branch(f"whole_{layer.index}"), Branch(f"blocks_{layer.index}")
    branches = {
        "then_branch": blocks.graph([_in_blocks(blocks, editor, layer, plan, query, caches, window)]),
        "else_branch": whole.graph(
            [_attention(whole, editor, layer, query, caches, plan.length, plan.masks[window])]
        ),
    }
    mixed = branch.add("If", plan.long, **branches)
    joined = branch.add(
        "Reshape",
        branch.add("Transpose", mixed, perm=[0, 2, 1, 3]),
        editor.constant(f"joined.{heads.widths[0]}", [0, 0, heads.widths[0]]),
    )
    return branch.graph([joined, *caches])


def _in_blocks(
    branch: Branch,
    editor: Editor,
    layer: Layer,
    plan: Plan,
    query: ir.Value,
    caches: list[ir.Value],
    window: int,
) -> ir.Value:
    axis, mixed = editor.constant("second", [2]), []
    for i in range(BLOCKS):
        part = branch.add("Slice", query, plan.starts[i], plan.starts[i + 1], axis)
        mask = plan.parts[window][i]
        mixed.append(_attention(branch, editor, layer, part, caches, plan.lengths[i], mask))
    return branch.add("Concat", *mixed, axis=2)


def _attention(
    branch: Branch,
    editor: Editor,
    layer: Layer,
    query: ir.Value,
    caches: list[ir.Value],
    length: ir.Value,
    mask: ir.Value,
) -> ir.Value:
    """[batch, heads, queries, dim] over the first `length` keys and values of the caches."""
    start, axis = editor.constant("zeroth", [0]), editor.constant("second", [2])
    filled = [branch.add("Slice", cache, start, length, axis) for cache in caches]
    key, value = (branch.add("Cast", part, to=ir.DataType.FLOAT) for part in filled)
    attributes = layer.node.attributes
    return branch.add(
        "Attention",
        query,
        key,
        value,
        mask,
        scale=attributes.get_float("scale", 0.0) or layer.heads.dim**-0.5,
        softcap=attributes.get_float("softcap", 0.0),
    )


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
    branch: Branch, editor: Editor, layer: Layer, plan: Plan, past: ir.Value, x: ir.Value
) -> ir.Value:
    """Round x [batch, chunk, kv heads * dim] into a cache."""
    whole, zero = editor.constant("kv.whole", np.float32(1)), editor.constant("kv.zero", np.int8(0))
    rounded = branch.add("QuantizeLinear", x, whole, zero)
    parts = _by_head(branch, editor, rounded, layer.heads.kv, layer.heads.dim)
    return branch.add("TensorScatter", past, parts, plan.past, axis=2)


def _by_head(branch: Branch, editor: Editor, x: ir.Value, heads: int, dim: int) -> ir.Value:
    """[batch, chunk, heads * dim] to [batch, heads, chunk, dim]."""
    split = branch.add("Reshape", x, editor.constant(f"split.{heads}.{dim}", [0, 0, heads, dim]))
    return branch.add("Transpose", split, perm=[0, 2, 1, 3])
