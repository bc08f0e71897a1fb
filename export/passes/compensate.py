"""Rounds a layer's weights to int8 so that errors make up for each other (GPTQ). Knows no graph.

Input channels are rounded one after another; what is lost on one is made good on those that are still to come
and that calibration saw move with it. Scales are those of rounding to the nearest, one for each column.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DAMPING = 0.01  # of the mean square of a channel, added to each
COLUMNS = 4096  # rounded at once; they do not depend on each other
BLOCK = 64  # channels whose losses reach the later ones together
LARGEST = 127

Array = np.ndarray[Any, Any]


def columns_to_int8(matrix: Array, gram: Array | None = None) -> tuple[Array, Array]:
    """float32 [in, out] -> int8 [in, out] and float32 [out] with matrix ≈ int8 * float32.

    gram: x^T x of the layer's inputs, float32 [in, in]; None: each weight is rounded to the nearest. A zero
    column stays zero.
    """
    scale = np.maximum(np.abs(matrix).max(axis=0) / LARGEST, 1e-12).astype(np.float32)
    if gram is None:
        return np.rint(matrix / scale).astype(np.int8), scale
    spread, rounded = _spread(gram), np.empty(matrix.shape, np.int8)
    for at in range(0, matrix.shape[1], COLUMNS):
        part = slice(at, at + COLUMNS)
        rounded[:, part] = _compensated(matrix[:, part] / scale[part], spread)
    return rounded, scale


def _spread(gram: Array) -> Array:
    """Upper triangular [in, in]: in row i, how a loss on channel i is shared out among the later ones."""
    damped = gram.astype(np.float64)
    level = max(float(damped.diagonal().mean()), 1e-20)
    damped[np.diag_indices_from(damped)] += DAMPING * level
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, np.float32)


def _compensated(steps: Array, spread: Array) -> Array:
    """float32 [in, columns], in steps of its scale, to whole steps up to LARGEST; overwrites `steps`."""
    rounded = np.empty_like(steps)
    for start in range(0, len(steps), BLOCK):
        end = min(start + BLOCK, len(steps))
        losses = np.empty_like(steps[start:end])
        for i in range(start, end):
            rounded[i] = np.clip(np.rint(steps[i]), -LARGEST, LARGEST)
            losses[i - start] = (steps[i] - rounded[i]) / spread[i, i]
            steps[i + 1 : end] -= spread[i, i + 1 : end, None] * losses[i - start]
        steps[end:] -= spread[start:end, end:].T @ losses
    return rounded
