"""The factors of all adapters that are loaded, in the buffers that the graph reads. Knows units, no adapter.

    "lora.{i}.a" [units, inputs, width], "lora.{i}.b" [units, width, outputs]    float32, see manifest.Lora

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

ROWS = "lora_rows"  # the graph's input [units, batch] float32: 1 where a row takes a unit
LARGEST = 1e8  # with a larger number a product could become infinite, and zero times that is no number


class Factors:
    def __init__(self, lora: Lora, units: int) -> None:
        """units: that there is room for; memory is taken for those that are written."""
        self.units = units
        self._names: dict[str, str] = {}  # of the graph's inputs -> of an adapter's arrays
        self._buffers: dict[str, NDArray[np.float32]] = {}
        for number, layer in enumerate(lora.layers):
            width = lora.unit * len(layer.modules)
            for kind, shape in ("a", (layer.inputs, width)), ("b", (width, layer.outputs)):
                name = f"lora.{number}.{kind}"
                self._names[name] = f"{layer.name}.{kind}"
                self._buffers[name] = np.zeros((units, *shape), np.float32)

    def views(self, units: Units) -> dict[str, NDArray[np.float32]]:
        """The graph's inputs for this stretch."""
        return {name: buffer[units.first : units.end] for name, buffer in self._buffers.items()}

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
