"""What passes fold into linear layers, noted so that low-rank factors can be given the same: W' = L W R.

A layer x W that has become x' W' takes x A B as x' (L A) (B R). L and R are made of vectors (what a channel
is multiplied with) and the one turn Q of the residual stream, as Q^T before a layer and Q behind it. Passes
note what they do by the name of the layer's weight; the notes lie beside the graph, in FOLDS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]

FOLDS = "folds.npz"
TURN = "turn"
SUFFIXES = (".int8", ".int4")  # of a weight's name, once it is rounded


class Folds:
    """In the order in which they were done; an empty vector stands for the turn."""

    def __init__(self) -> None:
        self.turn: Array | None = None  # float32 [hidden, hidden]
        self._inputs: dict[str, list[Array]] = {}
        self._outputs: dict[str, list[Array]] = {}

    def scale_inputs(self, name: str, factor: Array) -> None:
        """factor: float32 [in]; the layer's weights were multiplied with it."""
        self._inputs.setdefault(name, []).append(np.asarray(factor, np.float32))

    def scale_outputs(self, name: str, factor: Array) -> None:
        """factor: float32 [out]."""
        self._outputs.setdefault(name, []).append(np.asarray(factor, np.float32))

    def turn_inputs(self, name: str) -> None:
        self._inputs.setdefault(name, []).append(_TURNED)

    def turn_outputs(self, name: str) -> None:
        self._outputs.setdefault(name, []).append(_TURNED)

    def apply(self, name: str, a: Array, b: Array) -> tuple[Array, Array]:
        """a [in, ranks] and b [ranks, out] of the checkpoint's layer as the graph's wants them, float32."""
        for factor in self._inputs.get(name, []):
            a = factor[:, None] * a if factor.size else self._turn().T @ a
        for factor in self._outputs.get(name, []):
            b = b * factor if factor.size else b @ self._turn()
        return np.asarray(a, np.float32), np.asarray(b, np.float32)

    def save(self, path: Path) -> None:
        arrays = {
            f"inputs {i} {name}": one for name, all_ in self._inputs.items() for i, one in enumerate(all_)
        }
        arrays |= {
            f"outputs {i} {name}": one for name, all_ in self._outputs.items() for i, one in enumerate(all_)
        }
        if self.turn is not None:
            arrays[TURN] = self.turn
        np.savez(path, **arrays)  # type: ignore[arg-type]

    def _turn(self) -> Array:
        assert self.turn is not None
        return self.turn


_TURNED = np.zeros(0, np.float32)


def read_folds(path: Path) -> Folds:
    """What `save` wrote."""
    folds = Folds()
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            if key == TURN:
                folds.turn = arrays[key]
                continue
            side, _, name = key.split(" ", 2)
            notes = folds._inputs if side == "inputs" else folds._outputs
            notes.setdefault(name, []).append(arrays[key])
    return folds


def folds_of(graph: ir.Graph) -> Folds:
    """The graph's own, which go with it from pass to pass."""
    if FOLDS not in graph.meta:
        graph.meta[FOLDS] = Folds()
    folds: Folds = graph.meta[FOLDS]
    return folds


def stem(weight: ir.Value | None) -> str:
    """The name that a weight had in the fp32 slot graph."""
    name = str(weight.name) if weight is not None else ""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
