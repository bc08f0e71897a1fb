"""Turns the residual stream by one orthogonal matrix, folded exactly into the weights that write and read it.

    x' = x Q:  embedding, output, down and their biases times Q;  Q^T diag(norm) times q, k, v, gate, up, head

An RMS norm does not see the turn once its weight is folded into its readers, so in fp32 the graph computes
what it did. Afterwards no channel is louder than the others, and rows of 8 bits lose much less. A head that
is tied to the embedding cannot take the last norm's weight in: it reads Q^T diag(norm) Q of the stream, a
float32 product of a few rows. Where something else touches the stream (a norm behind a layer, a multiplier),
the graph stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import NORMS, Linear, embedding, linears
from export.passes.editing import Editor, consumers, data_of, is_own, set_array
from export.passes.folds import folds_of

Array = np.ndarray[Any, Any]
ROWS = {"Flatten", "Gather"}  # what picks rows of the stream and leaves its channels alone
SUM = 3  # SkipSimplifiedLayerNormalization's output that goes on as the stream


def rotate(model: ir.Model) -> bool:
    """True when the stream was turned; False when this architecture does not allow it."""
    stream = _stream_of(model)
    if stream is None:
        return False
    q = orthogonal(int(data_of(embedding(model).inputs[0]).shape[1]))
    folds = folds_of(model.graph)
    folds.turn = q
    for linear, bias in stream.writers:
        linear.set_matrix(linear.matrix() @ q)
        folds.turn_outputs(linear.name)
        if bias is not None:
            set_array(bias, data_of(bias) @ q)
    for norm, readers in stream.readers:
        _turn_readers(model, norm, readers, q)
    table = embedding(model).inputs[0]
    set_array(table, data_of(table) @ q)
    return True


def orthogonal(size: int) -> Array:
    """float32 [size, size], the same at every call.

    A Hadamard matrix of the largest power of two in `size`, times a random one of what is left; signs drawn.
    """
    draw = np.random.default_rng(0)
    power = size & -size
    rest, _ = np.linalg.qr(draw.standard_normal((size // power, size // power)))
    spread = np.ones((1, 1))
    while len(spread) < power:
        spread = np.kron(spread, [[1, 1], [1, -1]]) / np.sqrt(2)
    signs = draw.choice([-1.0, 1.0], (size, 1))
    return np.asarray(signs * np.kron(rest, spread), np.float32)


@dataclass
class _Stream:
    writers: list[tuple[Linear, ir.Value | None]] = field(default_factory=list)  # and its bias
    readers: list[tuple[ir.Value, list[Linear]]] = field(default_factory=list)  # by the norm's weight


def _stream_of(model: ir.Model) -> _Stream | None:
    """Follows the stream from the embedding to the head; None when a node is met that a turn would break."""
    layers = {linear.node: linear for linear in linears(model)}
    stream, found = {embedding(model).outputs[0]}, _Stream()
    for node in model.graph:
        inputs = [value for value in node.inputs if value in stream]
        if not inputs:
            continue
        if node.op_type in ROWS:
            stream.add(node.outputs[0])
            continue
        if not (node.op_type in NORMS or node.op_type == "Add") or not _note(node, stream, layers, found):
            return None
    return found if len(found.readers) > 1 else None


def _note(node: ir.Node, stream: set[ir.Value], layers: dict[ir.Node, Linear], found: _Stream) -> bool:
    """Notes what an addition or a norm joins and feeds; False when that cannot be turned."""
    count = 2 if node.op_type == "Add" else NORMS[node.op_type]
    for value in node.inputs[:count]:
        if value not in stream:
            writer = _writer(value, layers)
            if writer is None:
                return False
            found.writers.append(writer)
    if node.op_type == "Add":
        stream.add(node.outputs[0])
        return True
    if len(node.outputs) > SUM:
        stream.add(node.outputs[SUM])
    weight, readers = node.inputs[count], _readers(node.outputs[0], layers)
    if readers is None or len(node.inputs) > count + 1 or not is_own(weight):
        return False
    found.readers.append((weight, readers))
    return True


def _writer(value: ir.Value, layers: dict[ir.Node, Linear]) -> tuple[Linear, ir.Value | None] | None:
    node, bias = value.producer(), None
    if len(consumers(value)) == 1 and node is not None and node.op_type == "Add":
        value, bias = node.inputs
        node = value.producer() if is_own(bias) else None
    if node not in layers or len(consumers(value)) > 1 or len(consumers(layers[node].weight)) > 1:
        return None
    return layers[node], bias


def _readers(value: ir.Value, layers: dict[ir.Node, Linear]) -> list[Linear] | None:
    """The linear layers that read a norm's output; None when something else does."""
    found: list[Linear] = []
    for node in consumers(value):
        more = _readers(node.outputs[0], layers) if node.op_type in ROWS else None
        if more is None and node not in layers:
            return None
        found += more or [layers[node]]
    return found


def _turn_readers(model: ir.Model, norm: ir.Value, readers: list[Linear], q: Array) -> None:
    weight = data_of(norm)
    turned, folds = q.T * weight, folds_of(model.graph)
    for linear in readers:
        if len(consumers(linear.weight)) == 1:
            linear.set_matrix(turned @ linear.matrix())
            folds.scale_inputs(linear.name, weight)
            folds.turn_inputs(linear.name)
            continue
        editor = Editor(model)  # tied: its matrix is turned with the embedding's
        # No transposed weight: this Gemm is no linear layer to the passes that quantise those.
        mixed = editor.insert(
            linear.node, "Gemm", linear.source, editor.constant("head.turn", turned @ q), transB=0
        )
        linear.node.replace_input_with(0, mixed)
    set_array(norm, np.ones_like(weight))
