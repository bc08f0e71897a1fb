"""Finds how far to smooth each place of a W8A8 graph: by the error of what its readers make of real rows.

One exponent for all, as SmoothQuant has it, is far from the best in places: SmolLM2's down projections want a
smaller one, since their weights suffer, Gemma 3's a larger one, since their activations do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from export.passes.compensate import columns_to_int8
from export.passes.smooth import LEAST, Balance, Site

EXPONENTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # how much of a channel's loudness goes to the weights
COLUMNS = 512  # of the readers' outputs that are compared; their scales do not depend on each other

Array = np.ndarray[Any, Any]


def least_error(rows: Mapping[str, Array]) -> Balance:
    """rows: a sample of each layer's inputs, float32 [rows, in], by the name of the weight that reads it."""

    def balance(site: Site) -> Array:
        outputs = sum(reader.matrix().shape[1] for reader in site.readers)
        some = slice(None, None, -(-outputs // COLUMNS))
        matrix = np.concatenate([reader.matrix()[:, some] for reader in site.readers], axis=1)
        x = rows[site.readers[0].name]
        exact = x @ matrix
        return min(_candidates(site), key=lambda factor: _error(x, matrix, site.spread(factor), exact))

    return balance


def _candidates(site: Site) -> Iterator[Array]:
    loudness, largest = np.maximum(site.loudness, LEAST), np.maximum(site.largest, LEAST)
    yield np.ones_like(loudness)
    for exponent in EXPONENTS:
        yield loudness**exponent / largest ** (1 - exponent)


def _error(x: Array, matrix: Array, factor: Array, exact: Array) -> float:
    """Mean over rows of the error's energy against the row's own, so that a few huge rows do not decide."""
    weight, scale = columns_to_int8(matrix * factor[:, None])
    divided = x / factor
    step = np.maximum(np.abs(divided).max(axis=1, keepdims=True) / 127, 1e-20)
    made = (np.rint(divided / step) @ weight.astype(np.float32)) * step * scale
    return float((((made - exact) ** 2).sum(axis=1) / np.maximum((exact**2).sum(axis=1), 1e-20)).mean())
