"""Whisper's rules: which tokens may come next, and whether anybody spoke. Knows arrays and tokens, no queue.

They are openai-whisper's SuppressTokens, SuppressBlank and ApplyTimestampRules, as transformers has them:

- some tokens never come, some never first;
- timestamps come in pairs (one ends a segment, the next begins another), except before the end, never fall,
  and no segment is empty; an answer begins with one, that is not far into the window;
- where timestamps together are likelier than any other token, the next token is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items

import numpy as np

from basert.manifest import Speech
from engines.batch import Batch, Row
from engines.drawing import NEVER, Floats, logprob
from engines.runner import Output
from engines.sequence import Sequence


class SpeechRules:
    def __init__(self, speech: Speech, end: int) -> None:
        """end: the token that ends an answer; all text has lower ids."""
        self._speech = speech
        self._end = end
        self._suppress = np.array(sorted({*speech.suppress, speech.no_timestamps}), np.int64)
        self._suppress_first = np.array(speech.suppress_first, np.int64)

    def apply(self, batch: Batch, output: Output) -> list[int]:
        """Hold the logits of all rows that draw to the rules, in place, and return each row's best token.

        Where a request names the tokens that are allowed, it is held to nothing else.
        """
        logits = output.logits
        assert logits is not None
        for i, row in enumerate(batch.rows):
            if (sequence := row.sequence) is None:
                continue
            if row.sot >= 0:
                self._note(sequence, logits[i if row.sot + 1 == len(row.tokens) else len(batch.rows) + i])
            if row.draws and not sequence.submit.allowed_ids:
                self.hold(logits[i], sequence.answer, _timestamps(row))
        best: list[int] = logits[: len(batch.rows)].argmax(axis=1).tolist()
        return best

    def hold(self, logits: Floats, answer: Items[int], timestamps: bool) -> None:
        """Bar what may not follow the tokens of an answer; logits [vocab], in place."""
        logits[self._suppress] = NEVER
        if not answer:
            logits[self._suppress_first] = NEVER
        if timestamps:
            self._bar_by_order(logits, answer)
            self._prefer_timestamps(logits)
        else:
            logits[self._speech.timestamp_begin :] = NEVER

    def _bar_by_order(self, logits: Floats, answer: Items[int]) -> None:
        begin = self._speech.timestamp_begin
        if not answer:
            logits[:begin] = NEVER
            logits[begin + self._speech.max_initial_timestamp + 1 :] = NEVER
            return
        last = next((token for token in reversed(answer) if token >= begin), begin - 1)
        if answer[-1] < begin:
            logits[begin : last + 1] = NEVER
        elif len(answer) < 2 or answer[-2] >= begin:  # it begins a segment
            logits[begin:] = NEVER
        else:  # it ends one: the next begins there at the earliest
            logits[: self._end] = NEVER
            logits[begin:last] = NEVER

    def _prefer_timestamps(self, logits: Floats) -> None:
        begin = self._speech.timestamp_begin
        text, times = logits[:begin], logits[begin:]
        highest = times.max()
        together = float(highest) + math.log(float(np.exp(times - highest).sum()))
        if together > text.max():
            text[:] = NEVER

    def _note(self, sequence: Sequence, logits: Floats) -> None:
        """How likely the model says that nobody speaks; logits [vocab] after <|startoftranscript|>."""
        if self._speech.no_speech is not None:
            sequence.no_speech = math.exp(logprob(logits, self._speech.no_speech, 0).logprob)


def _timestamps(row: Row) -> bool:
    assert row.sequence is not None
    sound = row.sequence.submit.sound
    return sound is not None and sound.timestamps
