"""Guesses what a sequence says next from what it has said before: prompt lookup. Knows token ids only.

A draft is verified by one run over all its tokens, which costs little more than a step for one (most of a
step is reading the weights): what the model would have drawn anyway is kept, the rest thrown away. So a
guess can cost time and never changes an answer. How much is guessed follows what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOKUPS = (4, 3, 2, 1)  # last tokens that must have occurred before, the longest match first
SIZES = (1, 3, 7, 15)  # tokens of a draft; with the token before it, a bucket
POOR = 0.08  # tokens won by a draft on average: below that it costs more than it brings
WEIGHT = 0.1  # of the newest draft in that average
PAUSE = 16  # steps between drafts while they are poor


class Drafter:
    """One sequence's drafts. Its tokens only ever grow."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}  # tokens -> where they ended last, not at the very end
        self._indexed = 0
        self._sizes = {length: 0 if length == 1 else 1 for length in LOOKUPS}  # indices into SIZES
        self._matched = LOOKUPS[0]
        self._won = 0.5
        self._pause = 0

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow; none when there is nothing to go by, or it does not pay."""
        if self._pause:
            self._pause -= 1
            return []
        self._index(tokens)
        for length in LOOKUPS:
            if end := self._ends.get(tuple(tokens[-length:])):
                self._matched = length
                size = min(SIZES[self._sizes[length]], most)
                return [tokens[end + i % (len(tokens) - end)] for i in range(size)]  # a loop goes on
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """What came of the last draft: after a match as long, the next is longer or shorter."""
        size = self._sizes[self._matched]
        if accepted == drafted:
            self._sizes[self._matched] = min(size + 1, len(SIZES) - 1)
        elif 2 * accepted < drafted:
            self._sizes[self._matched] = max(size - 1, 0)
        self._won += WEIGHT * (accepted - self._won)
        self._pause = PAUSE if self._won < POOR else 0

    def _index(self, tokens: Sequence[int]) -> None:
        """Note every place but the last, which has nothing behind it yet."""
        for end in range(max(self._indexed, LOOKUPS[-1]), len(tokens)):
            for length in LOOKUPS:
                if length <= end:
                    self._ends[tuple(tokens[end - length : end])] = end
        self._indexed = len(tokens)
