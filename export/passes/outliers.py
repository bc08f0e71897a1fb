"""Channels of an encoder's norms that stand out, before rows become 8 bits: shifted and scaled, exactly.

    x = norm(…)    read by linear layers, and by the residual stream where norms come behind layers (BERT)

Shifted: the norm's bias is moved so that every channel lies around zero, and what reads it adds that back in
biases it has anyway. Scaled: the norm's weight where only linear layers read it; where the stream does, too,
by a product of its own in front of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.anatomy import Linear, linears, token_linears
from export.passes.editing import Editor, consumers, data_of, is_own, set_array
from export.passes.residual import Layer, layer_of
from export.passes.search import least_error
from export.passes.smooth import Site

Array = np.ndarray[Any, Any]


def settle_outliers(model: ir.Model, rows: Mapping[str, Array], progress: Callable[[int, int], None]) -> None:
    """rows: a sample of each layer's inputs, float32 [rows, in], by the name of the weight that reads it."""
    settler, by_source = _Settler(model), dict[ir.Value, list[Linear]]()
    for linear in token_linears(model):
        by_source.setdefault(linear.source, []).append(linear)
    for done, (source, readers) in enumerate(by_source.items()):
        progress(done, len(by_source))
        norm = source.producer()
        if norm is not None and norm.op_type == "LayerNormalization" and is_own(norm.inputs[1]):
            seen = settler.shift(norm, readers, rows[readers[0].name])
            settler.scale(norm, readers, seen)


class _Settler:
    def __init__(self, model: ir.Model) -> None:
        self.editor = Editor(model)
        self.layers = {linear.node: linear for linear in linears(model)}

    def shift(self, norm: ir.Node, readers: list[Linear], rows: Array) -> Array:
        """Moves the norm's bias; the rows as they are then. As they were, where something forbids it."""
        residual = self._residual(norm, readers)
        if residual is None or len(norm.inputs) < 3 or not is_own(norm.inputs[2]):
            return rows
        middle = np.asarray((rows.max(axis=0) + rows.min(axis=0)) / 2, np.float32)
        set_array(norm.inputs[2], data_of(norm.inputs[2]) - middle)
        for reader in readers:
            self._add(reader, middle @ reader.matrix())
        for layer, sign in residual:
            assert layer.bias is not None
            set_array(layer.bias, data_of(layer.bias) + sign * middle)
        return rows - middle

    def scale(self, norm: ir.Node, readers: list[Linear], rows: Array) -> None:
        largest = np.max([np.abs(reader.matrix()).max(axis=1) for reader in readers], axis=0)
        site = Site(np.sqrt((rows * rows).sum(axis=0)), largest, readers)
        balance = least_error({readers[0].name: rows})(site)
        factor = np.asarray(np.clip(balance / np.exp(np.log(balance).mean()), 1e-3, 1e3), np.float32)
        for reader in readers:
            reader.set_matrix(reader.matrix() * factor[:, None])
        if len(readers) == len(consumers(norm.outputs[0])):
            for constant in norm.inputs[1:]:
                set_array(constant, data_of(constant) / factor)
            return
        name = f"{readers[0].name}.scale_in"
        scaled = self.editor.insert(
            readers[0].node, "Mul", norm.outputs[0], self.editor.constant(name, 1 / factor)
        )
        for reader in readers:
            reader.node.replace_input_with(0, scaled)

    def _residual(self, norm: ir.Node, readers: list[Linear]) -> list[tuple[Layer, float]] | None:
        """The layers that are added to the norm's output, and with which sign the shift goes to their biases.

        None when something reads the norm's output that cannot make a shift good.
        """
        found, nodes = [], {reader.node for reader in readers}
        for user in consumers(norm.outputs[0]):
            if user in nodes:
                continue
            others = [value for value in user.inputs if value is not norm.outputs[0]]
            layer = layer_of(others[0], self.layers) if len(others) == 1 else None
            if user.op_type not in ("Add", "Sub") or layer is None or layer.bias is None:
                return None
            if user.op_type == "Sub" and user.inputs[0] is not norm.outputs[0]:
                return None
            found.append((layer, 1.0 if user.op_type == "Add" else -1.0))
        return found

    def _add(self, linear: Linear, bias: Array) -> None:
        """To the layer's bias; a layer without one gets it."""
        out = linear.node.outputs[0]
        users = consumers(out)
        if len(users) == 1 and users[0].op_type == "Add" and is_own(users[0].inputs[1]):
            set_array(users[0].inputs[1], data_of(users[0].inputs[1]) + bias)
            return
        total = self.editor.insert(
            users[0], "Add", out, self.editor.constant(f"{linear.name}.shift", np.asarray(bias, np.float32))
        )
        for user in users:
            for index, value in enumerate(user.inputs):
                if value is out:
                    user.replace_input_with(index, total)
