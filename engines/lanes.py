"""A queue with two lanes, interactive before batch, in which neither starves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from engines.sequence import Sequence

TURNS = 8  # every eighth turn is the batch lane's, if both have work


class Lanes:
    """First in, first out within a lane."""

    def __init__(self) -> None:
        self._interactive: deque[Sequence] = deque()
        self._batch: deque[Sequence] = deque()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._interactive
        yield from self._batch

    def push(self, sequence: Sequence) -> None:
        (self._batch if sequence.submit.priority > 0 else self._interactive).append(sequence)

    def pop(self) -> Sequence:
        """The next in turn. Raises IndexError when both lanes are empty."""
        if not (self._interactive and self._batch):
            return (self._interactive or self._batch).popleft()
        self._turn = (self._turn + 1) % TURNS
        return (self._interactive if self._turn else self._batch).popleft()

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that is in it, wherever it stands."""
        (self._batch if sequence.submit.priority > 0 else self._interactive).remove(sequence)
