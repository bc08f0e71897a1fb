"""Which linear layers of a checkpoint its slot graph's layers are: found by their weights, not by names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from basert.manifest import LoraLayer, LoraModule
from export.graph import GRAPH
from export.passes.anatomy import Linear, head, linears
from export.passes.editing import consumers
from export.reference import load_model

MODULES = "modules.json"

Array = np.ndarray[Any, Any]


def find_modules(checkpoint: Path, slot_graph: Path) -> list[LoraLayer]:
    """Every layer of the fp32 slot graph that is one or several of the checkpoint's, side by side.

    Others take no adapters; nor does the head, which may be the embedding.
    """
    modules = _Modules(load_model(checkpoint, dtype="auto"))
    model = ir.load(slot_graph / GRAPH)
    last = head(model).node
    found = []
    for linear in linears(model):
        if linear.node is not last and len(consumers(linear.weight)) == 1:
            parts = modules.of(linear)
            if parts:
                found.append(LoraLayer(linear.name, linear.matrix().shape[0], parts))
    return found


def read_modules(folder: Path) -> list[LoraLayer]:
    return msgspec.json.decode((folder / MODULES).read_bytes(), type=list[LoraLayer])


class _Modules:
    """The linear layers of a torch model, by the first row of their weights."""

    def __init__(self, model: Any) -> None:
        import torch

        self._by_row: dict[bytes, list[tuple[str, Any]]] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                weight = module.weight.detach()
                self._by_row.setdefault(_array(weight[0]).tobytes(), []).append((name, weight))

    def of(self, linear: Linear) -> list[LoraModule]:
        """Those that the graph's layer is made of, from its first column on; none if a column is of none."""
        columns, found = linear.matrix(), list[LoraModule]()
        while columns.shape[1]:
            row = np.ascontiguousarray(columns[:, 0]).tobytes()
            known = self._by_row.get(row, [])
            name, weight = next((one for one in known if _is_at(one[1], columns)), ("", ()))
            if not name:
                return []
            found.append(LoraModule(name, len(weight)))
            columns = columns[:, len(weight) :]
        return found


def _is_at(weight: Any, columns: Array) -> bool:
    """Whether weight [out, in] are the first of these columns [in, …]."""
    return len(weight) <= columns.shape[1] and np.array_equal(_array(weight).T, columns[:, : len(weight)])


def _array(tensor: Any) -> Array:
    array: Array = tensor.float().numpy()
    return array
