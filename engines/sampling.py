"""Logits to token ids: penalties, filters, the draw, and log-probabilities. Knows no queue and no cache.

The order is that of `basert.messages.Sampling`. Each filter is a floor under the weights exp(logit / t), so
that a vocabulary is never sorted: top-k needs a partition, top-p a sort of the few heaviest. Tokens that tie
with the last one kept are kept too.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from struct import Struct
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from basert.messages import Sampling, TokenLogprob
from engines.batch import Batch, Row
from engines.runner import Output
from engines.scheduler import Sample
from engines.sequence import Sequence

Floats = NDArray[np.float32]

BLOCK = 512  # the draw sums blocks of so many weights first: a running sum of a whole vocabulary is slow
COLDEST = 1e-6  # lower temperatures would overflow, and are greedy anyway
_COUNTER = Struct("<QQ")  # seed, position
FIRST_CUT, NEXT_CUT, LAST_CUT = 2.0**-6, 2.0**-12, 2.0**-100


class Sampler:
    """Draws each row's next token, and scores prompts."""

    def __init__(self) -> None:
        self._histories: WeakKeyDictionary[Sequence, History] = WeakKeyDictionary()

    def sample(self, batch: Batch, output: Output) -> list[Sample]:
        """One sample for each row of the batch; empty for those that draw nothing."""
        if batch.score:
            return [self._score(batch.rows[0], output)]
        if batch.verifies:
            return [self._verify(batch.rows[0], output)]
        best = output.tokens.tolist()
        return [
            self._draw(row, best[i], None if output.logits is None else output.logits[i])
            for i, row in enumerate(batch.rows)
        ]

    def _draw(self, row: Row, best: int, logits: Floats | None) -> Sample:
        """`best` is the graph's ArgMax; logits [vocab]."""
        sequence = row.sequence
        if sequence is None or not row.draws:
            return Sample()
        if logits is None or not sequence.needs_logits:
            return Sample((best,))
        adjusted = self._adjusted(sequence, logits)
        sampling = sequence.submit.sampling
        token = (
            draw(adjusted, sampling, len(sequence.tokens)) if sampling.temperature else int(adjusted.argmax())
        )
        wanted = sequence.submit.logprobs
        return Sample((token,), (logprob(logits, token, wanted),) if wanted >= 0 else ())

    def _verify(self, row: Row, output: Output) -> Sample:
        """Draw as decode steps would, for as long as what is drawn is what was guessed."""
        sequence, drawn = row.sequence, Sample()
        assert sequence is not None
        booked, best = len(sequence.tokens), output.tokens.tolist()
        for i, guess in enumerate([*row.tokens[1:], -1]):
            one = self._draw(row, best[i], None if output.logits is None else output.logits[i])
            drawn = Sample(drawn.tokens + one.tokens, drawn.logprobs + one.logprobs)
            sequence.tokens += one.tokens  # the next draw sees it
            if one.tokens != (guess,) or sequence.finish:
                break
        del sequence.tokens[booked:]  # the scheduler books them
        return drawn

    def _score(self, row: Row, output: Output) -> Sample:
        """Log-probabilities of the prompt tokens after those of a chunk; output.logits [chunk, vocab]."""
        sequence, logits = row.sequence, output.logits
        assert sequence is not None
        assert logits is not None
        first = len(row.tokens) - row.fresh
        following = sequence.tokens[row.past + first + 1 : row.past + len(row.tokens) + 1]
        scores = [
            logprob(logits[first + i], token, sequence.submit.prompt_logprobs)
            for i, token in enumerate(following)
        ]
        last = len(row.tokens) - 1
        return self._draw(row, int(output.tokens[last]), logits[last])._replace(scores=scores)

    def _adjusted(self, sequence: Sequence, logits: Floats) -> Floats:
        """The logits with penalties, bias and forbidden ends; the same array where there is nothing to do."""
        sampling = sequence.submit.sampling
        barred = sequence.generated < sequence.submit.min_tokens
        if not (barred or sampling.logit_bias or _penalised(sampling)):
            return logits
        logits = logits.copy()
        if _penalised(sampling):
            if sequence not in self._histories:
                self._histories[sequence] = History(len(logits))
            self._histories[sequence].penalise(logits, sequence)
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        if barred:
            logits[list(sequence.eos)] = -np.inf
        return logits


class History:
    """How often each token came in the answer, and whether it came at all; kept up as the sequence grows."""

    def __init__(self, vocab_size: int) -> None:
        self._seen = np.zeros(vocab_size, np.bool_)  # prompt included
        self._counts = np.zeros(vocab_size, np.float32)  # of the answer
        self._length = 0

    def penalise(self, logits: Floats, sequence: Sequence) -> None:
        """Apply repetition, frequency and presence penalties to logits [vocab] in place."""
        self._update(sequence)
        sampling = sequence.submit.sampling
        if sampling.repetition_penalty != 1:
            penalty = np.float32(sampling.repetition_penalty)
            seen = np.flatnonzero(self._seen)
            values = logits[seen]
            logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        if sampling.frequency_penalty:
            logits -= np.float32(sampling.frequency_penalty) * self._counts
        if sampling.presence_penalty:
            logits -= np.float32(sampling.presence_penalty) * (self._counts > 0)

    def _update(self, sequence: Sequence) -> None:
        self._seen[sequence.tokens[self._length :]] = True
        for token in sequence.tokens[max(self._length, len(sequence.submit.prompt)) :]:
            self._counts[token] += 1
        self._length = len(sequence.tokens)


def _penalised(sampling: Sampling) -> bool:
    return (
        sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
    )


def draw(logits: Floats, sampling: Sampling, position: int) -> int:
    """Draw the token at `position` of a sequence from logits [vocab], after temperature and filters."""
    weights = logits * np.float32(1 / max(sampling.temperature, COLDEST))
    highest = weights.max()
    if not math.isfinite(highest):
        raise FloatingPointError("the model's logits are not numbers")
    weights -= highest
    np.exp(weights, out=weights)
    uniform = uniform_at(sampling.seed, position)
    if sampling.top_k <= 0 and sampling.top_p >= 1 and sampling.min_p <= 0:
        return _pick(weights, uniform)
    ids, kept = filtered(weights, sampling)
    return int(ids[_pick(kept, uniform)])


def filtered(weights: Floats, sampling: Sampling) -> tuple[NDArray[np.intp], Floats]:
    """What top-k, top-p and min-p leave of weights [vocab], of which the greatest is 1: (ids, weights).

    Only the heavy ones are looked at, those above a cut. A floor that lies above the cut too is the floor of
    the whole vocabulary; else the cut is lowered.
    """
    cut = min(FIRST_CUT, sampling.min_p or FIRST_CUT)
    total = 0.0 if sampling.top_k > 0 else float(weights.sum())
    while True:
        ids = np.flatnonzero(weights >= cut)
        heavy = weights[ids]
        complete = len(ids) == len(weights)
        floor = _floor(heavy, total, complete, sampling)
        if complete or floor >= cut:
            kept = heavy >= floor
            return ids[kept], heavy[kept]
        cut = cut * NEXT_CUT if cut > LAST_CUT else 0.0


def _floor(heavy: Floats, total: float, complete: bool, sampling: Sampling) -> float:
    """The least weight that passes all filters, as far as the heavy ones tell; 0 when they are too few."""
    floor = 0.0
    if sampling.top_k > 0:
        if len(heavy) < sampling.top_k and not complete:
            return 0.0
        last = max(0, len(heavy) - sampling.top_k)
        floor = float(np.partition(heavy, last)[last])
    if sampling.top_p < 1:
        ordered = np.sort(heavy[heavy >= floor])[::-1]
        mass = np.cumsum(ordered, dtype=np.float64)
        last = int(np.searchsorted(mass, sampling.top_p * (total or mass[-1])))
        if last == len(ordered) and not complete:
            return 0.0
        floor = float(ordered[min(last, len(ordered) - 1)])
    return max(floor, min(sampling.min_p, 1.0))


def _pick(weights: Floats, uniform: float) -> int:
    """The index at which the running sum of the weights passes `uniform` of their total."""
    whole = len(weights) - len(weights) % BLOCK
    blocks = weights[:whole].reshape(-1, BLOCK).sum(axis=1)
    mass = np.append(blocks, weights[whole:].sum()).cumsum(dtype=np.float64)
    goal = min(uniform * mass[-1], np.nextafter(mass[-1], 0))  # below the sum, though it was rounded
    block = int(mass.searchsorted(goal, side="right"))
    inside = weights[block * BLOCK : (block + 1) * BLOCK]
    rest = goal - (mass[block - 1] if block else 0.0)
    index = int(inside.cumsum(dtype=np.float64).searchsorted(rest, side="right"))
    return block * BLOCK + min(index, int(np.flatnonzero(inside)[-1]))


def uniform_at(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on (seed, position) alone: the first 53 bits of their BLAKE2b hash."""
    digest = blake2b(_COUNTER.pack(seed % 2**64, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def logprob(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Of `token`, and of the `top` best, under softmax(logits [vocab])."""
    highest = logits.max()
    norm = float(highest) + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))
    best: list[tuple[int, float]] = []
    if top := min(top, len(logits)):
        ids = np.flatnonzero(logits >= np.partition(logits, -top)[-top])
        ids = ids[np.argsort(-logits[ids], kind="stable")][:top]
        best = [(int(i), float(logits[i]) - norm) for i in ids]
    return TokenLogprob(token, float(logits[token]) - norm, best)
