"""Which sequence owns which cache row, and which window of rows a decode step needs. Knows no tensor."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from engines.batch import Move
from engines.sequence import Sequence

# A row is worth moving when at most this many tokens are copied for each row that the window loses:
# copying a token takes about 10 us, an idle row about 1 ms in each of the steps to come.
TOKENS_PER_ROW = 256


class Slots:
    """The rows of the cache. The lowest free one is given first, which keeps windows small."""

    def __init__(self, count: int, buckets: Iterable[int]) -> None:
        self.owners: list[Sequence | None] = [None] * count
        self.buckets = sorted({size for size in buckets if size < count} | {count})
        self._free = list(range(count))  # a heap

    @property
    def used(self) -> int:
        return len(self.owners) - self.free

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, sequence: Sequence) -> None:
        """Give the sequence a row, of which one must be free."""
        sequence.slot = heapq.heappop(self._free)
        self.owners[sequence.slot] = sequence

    def release(self, sequence: Sequence) -> None:
        self.owners[sequence.slot] = None
        heapq.heappush(self._free, sequence.slot)
        sequence.slot = -1

    def window(self, rows: Collection[int]) -> tuple[int, int]:
        """(first row, size) of the smallest bucket that covers `rows`, which are not empty."""
        low, high = min(rows), max(rows)
        size = next(size for size in self.buckets if size > high - low)
        return min(low, len(self.owners) - size), size

    def compact(self) -> list[Move]:
        """Move the highest owners into free rows below if that brings all into a smaller window, cheaply."""
        owned = [sequence for sequence in self.owners if sequence is not None]
        size = next((size for size in self.buckets if size >= len(owned)), 0)
        if not owned or self.window([sequence.slot for sequence in owned])[1] <= size:
            return []
        high = [sequence for sequence in owned if sequence.slot >= size]
        saved = self.window([sequence.slot for sequence in owned])[1] - size
        if sum(sequence.computed for sequence in high) > TOKENS_PER_ROW * saved:
            return []
        return [self._lower(sequence) for sequence in high]

    def _lower(self, sequence: Sequence) -> Move:
        source = sequence.slot
        target = heapq.heapreplace(self._free, source)
        self.owners[source], self.owners[target] = None, sequence
        sequence.slot = target
        return Move(source, target, sequence.computed)
