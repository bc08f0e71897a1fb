"""Logits of one row to a token: temperature, filters, the draw; and log-probabilities. Knows arrays only.

The weights of a row are exp((logit - highest) / temperature). Each filter is a floor under them, so that a
vocabulary is never sorted: top-k needs a partition, top-p a sort of the few heaviest. Tokens that tie with
the last one kept are kept too. What is done to all of a row (some 50,000 logits) is one multiplication, one
subtraction, one power and sums by blocks, in a buffer that stays in the CPU's cache.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from basert.messages import Sampling, TokenLogprob
from engines.sessions.instructions import has_avx512

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

BITS = 9
BLOCK = 1 << BITS  # weights are summed by blocks of so many: a running sum of a whole vocabulary is slow
COLDEST = 1e-6  # lower temperatures would overflow, and are greedy anyway
FIRST_CUT, NEXT_CUT, LAST_CUT = 2.0**-6, 2.0**-4, 2.0**-100
NEVER = -1e30  # a forbidden token's logit: finite, for where nothing else is left it has to be drawn
MANY = 64  # weights, whose sum costs less than sorting them
_ONES = np.ones(BLOCK, np.float32)
_COUNTER = Struct("<QQ")  # seed, position
# With AVX-512, NumPy's powers of 2 take half the time of its powers of e; elsewhere three times as long.
_power, _BASE = (np.exp2, math.log2(math.e)) if has_avx512() else (np.exp, 1.0)


class Weights:
    """One row's weights, of which the greatest is 1, and what each BLOCK of them sums up to."""

    def __init__(self, logits: Floats, temperature: float, highest: float | None, buffer: Floats) -> None:
        """logits [vocab]; highest: the greatest of them, where that is known; buffer: a `scratch` for them.

        Raises FloatingPointError for logits that are not numbers.
        """
        scale = np.float32(_BASE / max(temperature, COLDEST))
        top = np.float32(logits.max() if highest is None else highest) * scale
        if not math.isfinite(top):
            raise _no_numbers()
        weights = np.multiply(logits, scale, out=buffer[: len(logits)])
        weights -= top
        _power(weights, out=weights)
        self.blocks = buffer.reshape(-1, BLOCK)
        self.sums = self.blocks @ _ONES
        self.total = float(self.sums.sum(dtype=np.float64))
        if not math.isfinite(self.total):
            raise _no_numbers()

    def at_least(self, cut: float) -> tuple[NDArray[np.intp], Floats]:
        """(ids, weights) of those that are no lighter than `cut` > 0; no block lighter than that has one."""
        blocks = np.flatnonzero(self.sums >= cut)
        if 2 * len(blocks) > len(self.blocks):  # then a copy of them would cost more than it spares
            ids = np.flatnonzero(self.blocks >= np.float32(cut))
            return ids, self.blocks.ravel()[ids]
        inside = self.blocks[blocks]
        places = np.flatnonzero(inside >= np.float32(cut))
        return blocks[places >> BITS] * BLOCK + (places & BLOCK - 1), inside.ravel()[places]


def scratch(vocab_size: int) -> Floats:
    """A buffer for the weights of one row after another: whole blocks, the padding is 0 and stays so."""
    return np.zeros(-(-vocab_size // BLOCK) * BLOCK, np.float32)


def _no_numbers() -> FloatingPointError:
    return FloatingPointError("the model's logits are not numbers")


def draw(
    logits: Floats,
    sampling: Sampling,
    position: int,
    highest: float | None = None,
    buffer: Floats | None = None,
) -> int:
    """Draw the token at `position` of a sequence from logits [vocab]; highest and buffer as in Weights.

    Raises FloatingPointError for logits that are not numbers.
    """
    buffer = scratch(len(logits)) if buffer is None else buffer
    weights = Weights(logits, sampling.temperature, highest, buffer)
    uniform = uniform_at(sampling.seed, position)
    if sampling.top_k <= 0 and sampling.top_p >= 1 and sampling.min_p <= 0:
        block, rest = pick(weights.sums, uniform)
        return block * BLOCK + pick(weights.blocks[block], rest / float(weights.sums[block]))[0]
    ids, kept = filtered(weights, len(logits), sampling)
    return int(ids[pick(kept, uniform)[0]])


def filtered(weights: Weights, vocab_size: int, sampling: Sampling) -> tuple[NDArray[np.intp], Floats]:
    """What top-k, top-p and min-p leave: (ids, weights), by id.

    Only the heavy ones are looked at, those above a cut. A floor that lies above the cut too is the floor of
    the whole vocabulary; else the cut is lowered, until at last all are looked at.
    """
    cut = min(FIRST_CUT, sampling.min_p or FIRST_CUT)
    while cut > LAST_CUT:
        ids, heavy = weights.at_least(cut)
        floor = _floor(heavy, weights.total, False, sampling)
        if floor >= cut:
            kept = heavy >= floor
            return ids[kept], heavy[kept]
        cut *= NEXT_CUT
    everything = weights.blocks.ravel()[:vocab_size]
    ids = np.flatnonzero(everything >= _floor(everything, weights.total, True, sampling))
    return ids, everything[ids]


def _floor(heavy: Floats, total: float, complete: bool, sampling: Sampling) -> float:
    """The least weight that passes all filters, as far as the heavy ones tell; 0 when they are too few."""
    floor = 0.0
    if sampling.top_k > 0:
        if len(heavy) < sampling.top_k and not complete:
            return 0.0
        last = max(0, len(heavy) - sampling.top_k)
        floor = float(np.partition(heavy, last)[last])
        heavy = heavy[heavy >= floor]
        total = _sum(heavy)
    if sampling.top_p < 1:
        goal = sampling.top_p * total
        if not complete and len(heavy) > MANY and _sum(heavy) < goal:
            return 0.0  # before they are sorted for nothing
        ordered = np.sort(heavy)[::-1]
        mass = ordered.cumsum(dtype=np.float64)
        last = int(mass.searchsorted(goal))
        if last == len(mass) and not complete:
            return 0.0
        floor = float(ordered[min(last, len(mass) - 1)])
    return max(floor, min(sampling.min_p, 1.0))


def _sum(values: Floats) -> float:
    return float(values.sum(dtype=np.float64))


def only(logits: Floats, allowed: Ids) -> Floats:
    """The logits of the allowed tokens; any other is worse than a forbidden one, yet a number: what else a
    request asks for may leave none of these."""
    kept = np.full_like(logits, 10 * NEVER)
    kept[allowed] = logits[allowed]
    return kept


def pick(weights: Floats, uniform: float) -> tuple[int, float]:
    """The index at which the running sum of the weights passes `uniform` of their total, and by how much
    that lies behind the sum before it."""
    mass = weights.cumsum(dtype=np.float64)
    total = float(mass[-1])
    goal = min(uniform * total, math.nextafter(total, 0))  # below the sum, though it was rounded
    index = int(mass.searchsorted(goal, side="right"))
    return index, goal - float(mass[index - 1]) if index else goal


def uniform_at(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on (seed, position) alone: the first 53 bits of their BLAKE2b hash."""
    digest = blake2b(_COUNTER.pack(seed % 2**64, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def logprob(logits: Floats, token: int, top: int, buffer: Floats | None = None) -> TokenLogprob:
    """Of `token`, and of the `top` best, under softmax(logits [vocab]); buffer as in Weights."""
    highest = float(logits.max())
    weights = Weights(logits, 1.0, highest, scratch(len(logits)) if buffer is None else buffer)
    norm = highest + math.log(weights.total)
    best: list[tuple[int, float]] = []
    if top := min(top, len(logits)):
        ids, _ = filtered(weights, len(logits), Sampling(top_k=top))
        ids = ids[np.argsort(-logits[ids], kind="stable")][:top]
        best = [(int(i), float(logits[i]) - norm) for i in ids]
    rank = int(np.count_nonzero(logits > logits[token])) + 1
    return TokenLogprob(token, float(logits[token]) - norm, best, rank)
