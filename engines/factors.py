"""The factors of all adapters that are loaded, in the buffers that the graph reads. Knows units, no adapter.

    "lora.{i}.a" [units * parts, inputs, unit]     float32, see basert.manifest.Lora
    "lora.{i}.b" [units * parts * unit, outputs]

A run reads the stretch of units between the first and the last that its rows take. What lies between is
multiplied with zero where it is not theirs, so it may be written meanwhile, as long as it is numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import Lora
from engines.units import Units

ROWS = "lora_rows."  # and a number of parts: [units * parts, batch] float32, 1 where a row takes the unit
LARGEST = 1e8  # with a larger number a product could become infinite, and zero times that is no number


class Factors:
    def __init__(self, lora: Lora, units: int) -> None:
        """units: that there is room for; memory is taken for those that are written."""
        self.units = units
        self.parts = sorted({layer.parts for layer in lora.layers})
        self._names: dict[str, str] = {}  # of the graph's inputs -> of an adapter's arrays
        self._buffers: dict[str, NDArray[np.float32]] = {}
        for number, layer in enumerate(lora.layers):
            parts = units * layer.parts
            shapes = {"a": (parts, layer.inputs, lora.unit), "b": (parts * lora.unit, layer.outputs)}
            for kind, shape in shapes.items():
                name = f"lora.{number}.{kind}"
                self._names[name] = f"{layer.name}.{kind}"
                self._buffers[name] = np.zeros(shape, np.float32)

    def views(self, units: Units) -> dict[str, NDArray[np.float32]]:
        """The graph's inputs for this stretch."""
        views = {}
        for name, buffer in self._buffers.items():
            rows = len(buffer) // self.units
            views[name] = buffer[units.first * rows : units.end * rows]
        return views

    def write(self, units: Units, arrays: Mapping[str, NDArray[Any]]) -> None:
        """An adapter's own, into the stretch. Raises BundleError when they are none that fit."""
        views = self.views(units)
        for name, view in views.items():
            array = arrays.get(self._names[name])
            if array is not None and (array.shape != view.shape or not np.abs(array).max() <= LARGEST):
                raise BundleError(
                    f"its {self._names[name]} does not fit the base or is no number; export the adapter again"
                )
        for name, view in views.items():
            view[...] = arrays.get(self._names[name], 0)
