"""Small hands for graph surgery with onnx-ir: constants, inserted nodes, pruning. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

MICROSOFT = "com.microsoft"
OURS = "basert/"  # how the names of inserted nodes begin; a number at the end makes them unique


class Editor:
    """Inserts nodes into one model's graph, each before a given node, or (None) behind all others."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        ours = [str(node.name).rpartition("_")[2] for node in model.graph if str(node.name).startswith(OURS)]
        self._count = max((int(number) for number in ours if number.isdecimal()), default=0)
        model.opset_imports.setdefault(MICROSOFT, 1)

    def constant(self, name: str, array: Any) -> ir.Value:
        """The initializer of that name; made from `array` when there is none yet."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        array = np.asarray(array)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
        value.dtype = ir.DataType.from_numpy(array.dtype)
        self.graph.register_initializer(value)
        return value

    def insert(
        self,
        before: ir.Node | None,
        op: str,
        *inputs: ir.Value | None,
        domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node with one output before `before`, or last; returns the output."""
        [out] = self.insert_many(before, op, inputs, 1, domain=domain, name=name, **attributes)
        return out

    def insert_many(
        self,
        before: ir.Node | None,
        op: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        *,
        domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """`insert` for a node with several outputs."""
        self._count += 1
        node = _node(op, inputs, outputs, domain, name or f"{OURS}{op}_{self._count}", attributes)
        if before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(before, node)
        return list(node.outputs)

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """`new` stands wherever `old` did, among the graph's outputs as well, and gets its name and type."""
        name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name, new.name = f"{name}.old", name

    def graph_input(self, name: str, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value


class Branch:
    """Collects the nodes of an `If` node's branch, which may read any value of the graph around it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[ir.Node] = []

    def add(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        [out] = self.add_many(op, inputs, 1, **attributes)
        return out

    def add_many(
        self, op: str, inputs: Sequence[ir.Value | None], outputs: int, *, domain: str = "", **attributes: Any
    ) -> list[ir.Value]:
        name = f"{OURS}{self._name}/{op}_{len(self._nodes)}"
        self._nodes.append(_node(op, inputs, outputs, domain, name, attributes))
        return list(self._nodes[-1].outputs)

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        """A value that no node of the graph around makes: branches have no initializers of their own here."""
        return self.add("Constant", value=ir.tensor(array))

    def graph(self, outputs: Sequence[ir.Value]) -> ir.Graph:
        return ir.Graph([], outputs, nodes=self._nodes, name=self._name)


def _node(
    op: str,
    inputs: Sequence[ir.Value | None],
    outputs: int,
    domain: str,
    name: str,
    attributes: dict[str, Any],
) -> ir.Node:
    node = ir.node(op, list(inputs), attributes=attributes, domain=domain, name=name, num_outputs=outputs)
    for index, output in enumerate(node.outputs):
        output.name = f"{name}:{index}"
    return node


def array_of(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The initializer's data, None when the value is computed or absent."""
    if value is None or value.const_value is None:
        return None
    array: np.ndarray[Any, Any] = value.const_value.numpy()
    return array


def data_of(value: ir.Value) -> np.ndarray[Any, Any]:
    """The data of a value that is known to be an initializer."""
    array = array_of(value)
    assert array is not None, f"{value.name} is no initializer"
    return array


def set_array(value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    """Give an initializer new data; dtype and shape follow."""
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
    value.dtype = ir.DataType.from_numpy(array.dtype)


def consumers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


def reached(value: ir.Value) -> set[ir.Node]:
    """All nodes that depend on `value`."""
    found: set[ir.Node] = set()
    todo = consumers(value)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(user for output in node.outputs for user in consumers(output))
    return found


def is_own(constant: ir.Value | None) -> bool:
    """An initializer that one node reads: it can be given new data."""
    return constant is not None and array_of(constant) is not None and len(consumers(constant)) == 1


def prune(model: ir.Model) -> None:
    """Drop nodes and initializers that no output needs."""
    common.RemoveUnusedNodesPass()(model)
