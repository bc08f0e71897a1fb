"""Smoothing, folded exactly: an activation's loud channels are turned down, the weights that read them up.

    norm -> q, k, v          norm -> gate, up          final norm -> head (and back where tokens are embedded)
    v    -> output           up   -> down              (one factor per channel, geometric mean 1)

A norm's bias goes with its weight. In fp32 the graph computes what it did. A layer whose input comes from
elsewhere keeps its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, embedding, linears, norm_bias, norm_weight
from export.passes.attend import split_of
from export.passes.editing import Editor, array_of, consumers, data_of, set_array
from export.passes.folds import folds_of

Array = np.ndarray[Any, Any]
LEAST = 1e-5  # a channel more silent than this is as good as silent


@dataclass(frozen=True)
class Site:
    """One place where channels can be divided."""

    loudness: Array  # root of the sum of squares of each channel, float32 [channels]
    largest: Array  # its largest weight
    readers: list[Linear]
    spread: Callable[[Array], Array] = lambda factor: factor  # what it means for the readers' inputs


Balance = Callable[[Site], Array]
"""What to divide each channel by, up to a common factor; float32 [channels], above zero."""


def for_rounded_weights(site: Site) -> Array:
    """AWQ: only weights are rounded, and those of loud channels matter most; the exponent was measured."""
    return np.asarray(np.maximum(site.loudness, LEAST) ** 0.35)


def smooth(model: ir.Model, squares: Mapping[str, Array], balance: Balance) -> dict[str, Array]:
    """Smooth every place above; returns what the inputs of each layer were divided by, float32 [in].

    `squares`: sum of squares of each input channel. They and the result go by the name of the weight that
    reads it.
    """
    smoother = _Smoother(model, {name: np.sqrt(array) for name, array in squares.items()}, balance)
    smoother.norms()
    smoother.products()
    smoother.values()
    smoother.plain_values()
    return smoother.applied


class _Smoother:
    def __init__(self, model: ir.Model, loudness: Mapping[str, Array], balance: Balance) -> None:
        self.model, self.loudness, self.balance = model, loudness, balance
        self.by_node = {linear.node: linear for linear in linears(model)}
        self.fused = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
        self.applied: dict[str, Array] = {}
        self.folds = folds_of(model.graph)

    def norms(self) -> None:
        by_source: dict[ir.Value, list[Linear]] = {}
        for linear in self.by_node.values():
            by_source.setdefault(linear.source, []).append(linear)
        for source, readers in by_source.items():
            weight = norm_weight(source)
            if weight is None or _shared(weight, norm_bias(source)) or len(readers) < len(consumers(source)):
                continue
            largest = np.max([_largest_rows(linear) for linear in readers], axis=0)
            factor = self._factor(Site(self.loudness[readers[0].name], largest, readers))
            for part in (weight, norm_bias(source)):
                if part is not None:
                    set_array(part, data_of(part) / factor)
            for linear in readers:
                self._multiply_rows(linear, factor)

    def products(self) -> None:
        """down reads Mul(act(gate), up): up's columns can be divided."""
        for down in self.by_node.values():
            product = down.source.producer()
            if product is None or product.op_type != "Mul" or len(consumers(down.source)) > 1:
                continue
            factor = self._factor(Site(self.loudness[down.name], _largest_rows(down), [down]))
            for value in product.inputs:
                if len(consumers(value)) == 1 and self._divide_last_columns(value, factor):
                    self._multiply_rows(down, factor)
                    break

    def values(self) -> None:
        """The output projection reads averages of v: one factor per channel of v, the same for its heads."""
        for node in self.fused:
            readers = consumers(node.outputs[0])
            while len(readers) == 1 and readers[0].op_type in ("Flatten", "Gather"):  # the last layer's rows
                readers = consumers(readers[0].outputs[0])
            if len(readers) != 1 or readers[0] not in self.by_node:
                continue
            output = self.by_node[readers[0]]
            heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
            grouped = (kv_heads, heads // kv_heads, output.matrix().shape[0] // heads)
            loudness, largest = (
                array.reshape(grouped).max(1).reshape(-1)
                for array in (self.loudness[output.name], _largest_rows(output))
            )
            spread = partial(_for_every_head, grouped=grouped)
            factor = self._factor(Site(loudness, largest, [output], spread))
            values = node.inputs[0] if node.inputs[2] is None else node.inputs[2]  # packed: q, k, v in a row
            if self._divide_last_columns(values, factor):
                self._multiply_rows(output, spread(factor))

    def plain_values(self) -> None:
        """The same where attention is made of plain products: MatMul(Softmax, v)."""
        for node in self.model.graph:
            weights = node.inputs[0].producer() if node.op_type == "MatMul" else None
            if weights is None or weights.op_type != "Softmax":
                continue
            split, heads = split_of(node.inputs[1]), consumers(node.outputs[0])
            joined = consumers(heads[0].outputs[0])[0] if len(heads) == 1 else None
            readers = consumers(joined.outputs[0]) if joined is not None else []
            if split is None or len(readers) != 1 or readers[0] not in self.by_node:
                continue
            output = self.by_node[readers[0]]
            factor = self._factor(Site(self.loudness[output.name], _largest_rows(output), [output]))
            if self._divide_last_columns(split.inputs[0], factor):
                self._multiply_rows(output, factor)

    def _factor(self, site: Site) -> Array:
        balance = self.balance(site)
        return np.asarray(np.clip(balance / np.exp(np.log(balance).mean()), 1e-3, 1e3), np.float32)

    def _multiply_rows(self, linear: Linear, factor: Array) -> None:
        linear.set_matrix(linear.matrix() * factor[:, None])
        self.folds.scale_inputs(linear.name, factor)
        self.applied[linear.name] = factor
        if len(consumers(linear.weight)) > 1:
            self._divide_embedded(linear, factor)

    def _divide_embedded(self, head: Linear, factor: Array) -> None:
        """The head's matrix is the embedding's too: embedded tokens are divided by its factor."""
        node = embedding(self.model)
        assert node.inputs[0] is head.weight
        editor = Editor(self.model)
        users = consumers(node.outputs[0])
        plain = editor.insert(
            users[0], "Mul", node.outputs[0], editor.constant("embedding.unsmooth", 1 / factor)
        )
        for user in users:
            for index, value in enumerate(user.inputs):
                if value is node.outputs[0]:
                    user.replace_input_with(index, plain)

    def _divide_last_columns(self, value: ir.Value, factor: Array) -> bool:
        """Divide the last columns of the linear layer that makes `value`, bias included; False if none does.

        Of a Split's outputs only the last one is followed: the others are not made by the last columns.
        """
        node, bias = value.producer(), None
        if node is not None and node.op_type == "Split" and value is node.outputs[-1]:
            node = node.inputs[0].producer()
        if node is not None and node.op_type == "Add" and array_of(node.inputs[1]) is not None:
            node, bias = node.inputs[0].producer(), node.inputs[1]
        if node not in self.by_node:
            return False
        linear = self.by_node[node]
        ones = np.ones(linear.matrix().shape[1] - factor.size, np.float32)
        divisor = np.concatenate([ones, factor])
        linear.set_matrix(linear.matrix() / divisor)
        self.folds.scale_outputs(linear.name, 1 / divisor)
        if bias is not None:
            set_array(bias, data_of(bias) / divisor)
        return True


def _for_every_head(factor: Array, grouped: tuple[int, int, int]) -> Array:
    """[kv heads * dim] -> [heads * dim]: all heads of a group read the same channels of v."""
    return np.broadcast_to(factor.reshape(grouped[0], 1, grouped[2]), grouped).reshape(-1)


def _shared(*parts: ir.Value | None) -> bool:
    return any(part is not None and len(consumers(part)) > 1 for part in parts)


def _largest_rows(linear: Linear) -> Array:
    """The largest absolute weight of each input channel."""
    return np.asarray(np.abs(linear.matrix()).max(axis=1))
