"""Logits to token ids, row by row: penalties, bias, grammars, bars, who draws. Knows no queue and no cache.

The order is that of `basert.messages.Sampling`; from the temperature on it is engines.drawing. One thread
does it all: two, which take turns at the interpreter's lock, took longer (measured: 32 rows, two cores).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from basert.errors import InvalidRequest
from basert.messages import Sampling
from engines.batch import Batch, Row, Sample
from engines.drawing import NEVER, Floats, Ids, draw, logprob, only, scratch
from engines.runner import Output
from engines.sequence import Sequence
from engines.stats import Counters

if TYPE_CHECKING:
    from engines.constraints import Ahead, Constraint
    from engines.speech_rules import SpeechRules


class Sampler:
    """Draws each row's next token, and scores prompts."""

    def __init__(self, counters: Counters, rules: SpeechRules | None = None) -> None:
        """rules: of a speech model; its logits and log-probabilities are those that they leave."""
        self._counters = counters
        self._rules = rules
        self._histories: WeakKeyDictionary[Sequence, History] = WeakKeyDictionary()
        self._allowed: WeakKeyDictionary[Sequence, Ids] = WeakKeyDictionary()
        self._scratch: Floats | None = None
        self._ahead: Ahead | None = None
        self._constraints: list[Constraint] = []  # of the rows sampled last

    def sample(self, batch: Batch, output: Output) -> list[Sample]:
        """One sample for each row of the batch; empty for those that draw nothing."""
        samples = self._samples(batch, output)
        self._constraints = [one for row in batch.rows if (one := _constraint(row)) is not None]
        return samples

    def look_ahead(self) -> None:
        """Begin to find out what grammars allow next. To be called right before the graph runs: until then
        the threads that do it would only take turns with this one at the interpreter's lock."""
        if self._constraints:
            self._ahead = self._ahead or _ahead()
            self._ahead.look(self._constraints)
            self._constraints = []

    def _samples(self, batch: Batch, output: Output) -> list[Sample]:
        if batch.score:
            return [self._score(batch.rows[0], output)]
        if batch.verifies:
            return [self._verify(batch.rows[0], output)]
        if self._rules is not None:
            return self._heard(self._rules, batch, output)
        best = output.tokens.tolist()
        return [
            self._draw(row, best[i], None if output.logits is None else output.logits[i])
            for i, row in enumerate(batch.rows)
        ]

    def _heard(self, rules: SpeechRules, batch: Batch, output: Output) -> list[Sample]:
        """Of a speech model's rows."""
        logits = output.logits
        if logits is None:  # a window was heard, or a chunk that draws nothing
            return [Sample()] * len(batch.rows)
        best = rules.apply(batch, output)
        samples = [self._draw(row, best[i], logits[i]) for i, row in enumerate(batch.rows)]
        if output.alignment is not None:
            for i, attention in zip(batch.aligned, output.alignment, strict=True):
                samples[i] = samples[i]._replace(alignment=attention.astype("<f2").tobytes())
        return samples

    def _draw(self, row: Row, best: int, logits: Floats | None) -> Sample:
        """`best` is the graph's ArgMax; logits [vocab]."""
        sequence = row.sequence
        if sequence is None or not row.draws:
            return Sample()
        if logits is None or not sequence.needs_logits:
            return Sample((best,))
        if sequence.constraint is not None:
            return self._constrained(sequence, sequence.constraint, best, logits)
        return self._sample(sequence, self._token(sequence, best, logits, None), logits)

    def _constrained(self, sequence: Sequence, constraint: Constraint, best: int, logits: Floats) -> Sample:
        """A draw among what a grammar allows."""
        started = time.perf_counter()
        try:
            coming = constraint.next()
        except InvalidRequest as error:
            return Sample(error=error.message)
        finally:
            self._counters.mask_seconds += time.perf_counter() - started
        if coming is None:
            return Sample(held=True)
        only = coming.only
        token = only if only >= 0 else self._token(sequence, best, logits, coming.penalty)
        if token not in sequence.eos:
            constraint.accept(token)
        self._counters.constrained_tokens += 1
        return self._sample(sequence, token, logits)

    def _token(self, sequence: Sequence, best: int, logits: Floats, penalty: Floats | None) -> int:
        sampling = sequence.submit.sampling
        adjusted = self._adjusted(sequence, logits, penalty)
        if sampling.temperature:
            highest = float(logits[best]) if adjusted is logits else None
            return draw(adjusted, sampling, len(sequence.tokens), highest, self._buffer(logits))
        return best if adjusted is logits else int(adjusted.argmax())

    def _sample(self, sequence: Sequence, token: int, logits: Floats) -> Sample:
        wanted = sequence.submit.logprobs
        if wanted < 0:
            return Sample((token,))
        return Sample((token,), (logprob(logits, token, wanted, self._buffer(logits)),))

    def _buffer(self, logits: Floats) -> Floats:
        if self._scratch is None:
            self._scratch = scratch(len(logits))
        return self._scratch

    def _verify(self, row: Row, output: Output) -> Sample:
        """Draw as decode steps would, for as long as what is drawn is what was guessed."""
        sequence, drawn = row.sequence, Sample()
        assert sequence is not None
        booked, best = len(sequence.tokens), output.tokens.tolist()
        for i, guess in enumerate([*row.tokens[1:], -1]):
            one = self._draw(row, best[i], None if output.logits is None else output.logits[i])
            if not (one.tokens or drawn.tokens):
                return one
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

    def _adjusted(self, sequence: Sequence, logits: Floats, penalty: Floats | None) -> Floats:
        """The logits with penalties, bias, bars and a grammar's word (`penalty` [vocab], see
        engines.constraints), which is the last one; the same array where there is nothing to do."""
        sampling, allowed = sequence.submit.sampling, self._allowed_of(sequence)
        forbidden, biased = sequence.forbidden(), bool(sampling.logit_bias) or _penalised(sampling)
        if allowed is None and not (forbidden or biased):
            return logits if penalty is None else logits + penalty[: len(logits)]
        logits = logits.copy()
        if _penalised(sampling):
            if sequence not in self._histories:
                self._histories[sequence] = History(len(logits))
            self._histories[sequence].penalise(logits, sequence)
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        if allowed is not None:
            logits = only(logits, allowed)
        logits[forbidden] = NEVER
        return logits if penalty is None else logits + penalty[: len(logits)]

    def _allowed_of(self, sequence: Sequence) -> Ids | None:
        """As an array, made once: a list of a whole vocabulary takes milliseconds."""
        if not sequence.submit.allowed_ids:
            return None
        if sequence not in self._allowed:
            self._allowed[sequence] = np.array(sequence.submit.allowed_ids)
        return self._allowed[sequence]


def _constraint(row: Row) -> Constraint | None:
    return row.sequence.constraint if row.sequence is not None else None


def _ahead() -> Ahead:
    from engines.constraints import Ahead

    return Ahead()


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
