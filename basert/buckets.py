"""Which lengths an encoder's buckets should have, from the lengths of the inputs that a server saw.

Within a bin of the histogram every length counts as equally likely. A bucket costs its padded tokens, so the
lengths are chosen that pad least in all: exactly, by dynamic programming over the candidates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

STEP = 8  # lengths are multiples of it, or of a larger one where the longest input is long
CANDIDATES = 128  # lengths that are looked at
ROWS = (1, 2, 4, 8, 16, 32)
BUDGET = 1024  # tokens of a batch: longer ones are no faster by the token


class Seen(NamedTuple):
    """A histogram of lengths: counts[i] inputs were longer than bounds[i - 1] and at most bounds[i]."""

    bounds: list[int]
    counts: list[float]


def suggest(seen: Seen, lengths: int, longest: int) -> list[int]:
    """So many lengths at most, ascending, the last being `longest`: the tokens of the longest input taken."""
    step = STEP * max(1, math.ceil(longest / STEP / CANDIDATES))
    candidates = [*range(step, longest, step), longest]
    below = list(accumulate((_inputs(seen, *ends) for ends in pairwise([0, *candidates])), initial=0.0))

    @functools.cache
    def least(end: int, left: int) -> tuple[float, list[int]]:
        """Padded tokens of the inputs up to candidate `end` with `left` lengths, and these."""
        if end == 0:
            return 0.0, []
        if left == 0:
            return math.inf, []
        length = candidates[end - 1]
        ways = ((least(start, left - 1), (below[end] - below[start]) * length) for start in range(end))
        (cost, chosen), own = min(ways, key=lambda way: way[0][0] + way[1])
        return cost + own, [*chosen, length]

    return least(len(candidates), lengths)[1]


def shapes(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Buckets (rows, tokens) of these lengths, alone and in batches."""
    return [(rows, tokens) for tokens in lengths for rows in ROWS if rows == 1 or rows * tokens <= BUDGET]


def padding(seen: Seen, lengths: Sequence[int]) -> float:
    """The share of tokens that would be padding if every row were full; longer inputs are left out."""
    padded = useful = 0.0
    for first, last in pairwise([0, *lengths]):
        padded += _inputs(seen, first, last) * last
        useful += _tokens(seen, first, last)
    return 1 - useful / padded if padded else 0.0


def _inputs(seen: Seen, first: int, last: int) -> float:
    """Inputs of more than `first` and at most `last` tokens."""
    return sum(part for part, _ in _parts(seen, first, last))


def _tokens(seen: Seen, first: int, last: int) -> float:
    return sum(part * mean for part, mean in _parts(seen, first, last))


def _parts(seen: Seen, first: int, last: int) -> list[tuple[float, float]]:
    """Of each bin the inputs within (first, last], and their mean length."""
    parts = []
    for (below, bound), count in zip(pairwise([0, *seen.bounds]), seen.counts, strict=True):
        low, high = max(first, below), min(last, bound)
        if low < high:
            parts.append((count * (high - low) / (bound - below), (low + 1 + high) / 2))
    return parts
