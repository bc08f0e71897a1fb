"""When each token was spoken: time warping over cross-attention. Knows arrays, no text, no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME = 0.02  # seconds: what one position of Whisper's encoder stands for

_WIDTH = 7  # of the median filter, in frames
# Exchanges that sort seven values.
_SORT = (
    *((0, 6), (2, 3), (4, 5), (0, 2), (1, 4), (3, 6), (0, 1), (2, 5)),
    *((3, 4), (1, 2), (4, 6), (2, 3), (4, 5), (1, 2), (3, 4), (5, 6)),
)


def token_starts(attention: NDArray[np.float32]) -> NDArray[np.float64]:
    """Seconds [tokens] at which each token begins, rising, from attention [heads, tokens, frames] f32.

    attention: probabilities of the heads that follow time, at the step that chose the token, without the
    frames of silence added behind the window. To learn when the last word ends, add the end of text.
    """
    rows, columns = warp(-score(attention))
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    return columns[first].astype(np.float64) * FRAME


def score(attention: NDArray[np.float32]) -> NDArray[np.float32]:
    """How well token and frame go together, [tokens, frames]: what stands out, smoothed, mean of heads."""
    mean = attention.mean(axis=-2, keepdims=True)
    spread = attention.std(axis=-2, keepdims=True)
    standard = (attention - mean) / np.maximum(spread, np.float32(1e-12))
    return _median(standard).mean(axis=0)  # type: ignore[no-any-return]


def warp(cost: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The cheapest path from corner to corner of cost [n, m]: rows and columns, rising by 0 or 1 a step."""
    total = _totals(cost)
    row, column = cost.shape
    path = []
    while row > 0 and column > 0:
        path.append((row - 1, column - 1))
        both, above, left = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
        if both <= above and both <= left:
            row, column = row - 1, column - 1
        elif above < left:
            row -= 1
        else:
            column -= 1
    rows, columns = np.array(path[::-1], np.intp).reshape(-1, 2).T
    return rows, columns


def _totals(cost: NDArray[np.floating]) -> NDArray[np.float64]:
    """The cost of the cheapest path to each cell, [n + 1, m + 1] f64, behind a border of infinity.

    A row at once: a path enters it somewhere from above and goes right from there, which costs the difference
    of two running sums. So the best entry for each column is a running minimum.
    """
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for row, costs in enumerate(cost.astype(np.float64), 1):
        sums = np.concatenate([[0.0], np.cumsum(costs)])
        entries = np.minimum(total[row - 1, :-1], total[row - 1, 1:])
        total[row, 1:] = sums[1:] + np.minimum.accumulate(entries - sums[:-1])
    return total


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Running median along the last axis, mirrored at its ends."""
    half = _WIDTH // 2
    count = values.shape[-1]
    if count <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    lanes = [padded[..., at : at + count] for at in range(_WIDTH)]
    for low, high in _SORT:
        lanes[low], lanes[high] = np.minimum(lanes[low], lanes[high]), np.maximum(lanes[low], lanes[high])
    return lanes[half]
