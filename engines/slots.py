"""Which sequence owns which cache row, and which window of rows a decode step needs. Knows no tensor.

What a row holds when its sequence has ended stays there for later prompts (engines/prefix.py) until the row
is needed. A row is chosen for a small window; which content is lost for it is another choice, since content
can be copied away. So does the window of sound that a speech model's row has heard (engines/heard.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from engines.batch import Move
from engines.heard import Heard
from engines.prefix import Match, Prefixes
from engines.sequence import Sequence

# A row is worth moving when at most this many tokens are copied for each row that the window loses:
# copying a token takes 1 us (8 bits) to 4 us (floats), an idle row about 1 ms in each of the steps to come.
TOKENS_PER_ROW = 256
# What only one row holds is worth copying from so many tokens on: they take 10 ms to compute, 0.1 ms to copy.
WORTH_COPYING = 32


class Slots:
    """The rows of the cache."""

    def __init__(self, count: int, buckets: Iterable[int], *, keep: bool = True, window: int = 0) -> None:
        """keep: free rows are a prefix cache. window: tokens that weigh as much as what a row has heard."""
        self.owners: list[Sequence | None] = [None] * count
        self.buckets = sorted({size for size in buckets if size < count} | {count})
        self.prefixes = Prefixes(count, keep=keep)
        self.heard = Heard(count)
        self.free = count
        self._window = window

    @property
    def used(self) -> int:
        return len(self.owners) - self.free

    @property
    def retained_tokens(self) -> int:
        return sum(held.length for row in self._free() if (held := self.prefixes.held[row]) is not None)

    def take(self, sequence: Sequence, found: Match) -> list[Move]:
        """Give the sequence a row, of which one must be free, with what was found of its prompt in it."""
        prefixes = self.prefixes
        if found.length:
            prefixes.use(found.row)
        sound = sequence.submit.sound
        row = self._choose(found.row if sound is None else self.heard.find(sound.features, self._free()))
        moves = self._save(row, sequence.ids)
        if found.length and (found.row != row or prefixes.torn(row)):
            moves.append(Move(found.row, row, found.length, prefixes.torn(found.row)))
        self._own(row, sequence)
        moves += self.recall(sequence)
        prefixes.begin(row, sequence.ids, found.length)
        if found.length and self.owners[found.row] is None:
            prefixes.thin(found.row)
        return moves

    def share(self, sequence: Sequence, found: Match) -> Move:
        """Copy what was found of a running sequence's prompt into its row."""
        self.prefixes.use(found.row)
        self.prefixes.grow(sequence.slot, found.length)
        return Move(found.row, sequence.slot, found.length, self.prefixes.torn(found.row))

    def recall(self, sequence: Sequence) -> list[Move]:
        """Let its row have heard what it is to hear, if any row has."""
        if sequence.heard:
            return []
        assert sequence.submit.sound is not None
        row, source = sequence.slot, self.heard.find(sequence.submit.sound.features, [sequence.slot])
        if source < 0:
            return []
        sequence.heard = True
        if source == row:
            return []
        self.heard.copy(source, row)
        return [Move(source, row, 0, heard=True)]

    def release(self, sequence: Sequence) -> None:
        self.heard.use(sequence.slot)
        self.prefixes.retain(sequence.slot)
        self._disown(sequence)

    def window(self, rows: Collection[int]) -> tuple[int, int]:
        """(first row, size) of the smallest bucket that covers `rows`, which are not empty."""
        low, high = min(rows), max(rows)
        size = next(size for size in self.buckets if size > high - low)
        return min(low, len(self.owners) - size), size

    def overrun(self, first: int, size: int) -> list[int]:
        """The rows of a decode window that are free, hold something, and are to lose their first token."""
        return self.prefixes.overrun(row for row in range(first, first + size) if self.owners[row] is None)

    def forget(self) -> None:
        """Free rows hold nothing any more."""
        for row in self._free():
            self.prefixes.drop(row)
            self.heard.drop(row)

    def compact(self) -> list[Move]:
        """Move all owners into the smallest window that has room for them, where that is cheapest, if it is
        cheap there."""
        owned = [sequence for sequence in self.owners if sequence is not None]
        size = next((size for size in self.buckets if size >= len(owned)), 0)
        now = self.window([sequence.slot for sequence in owned])[1] if owned else 0
        if now <= size:
            return []
        outside = partial(_outside, owned, size)
        first = min(range(len(self.owners) - size + 1), key=lambda first: self._tokens(outside(first)))
        if self._tokens(outside(first)) > (TOKENS_PER_ROW + self._window) * (now - size):
            return []
        window = range(first, first + size)
        return [move for sequence in outside(first) for move in self._shift(sequence, window)]

    def _free(self) -> list[int]:
        return [row for row, owner in enumerate(self.owners) if owner is None]

    def _choose(self, holder: int) -> int:
        """Of the free rows that keep the window smallest, the holder of the prefix, else the least missed."""
        owned = [row for row, owner in enumerate(self.owners) if owner is not None]
        ends = [owned[0], owned[-1]] if owned else []
        sizes = {row: self.window([*ends, row])[1] for row in self._free()}
        least = min(sizes.values())
        near = [row for row, size in sizes.items() if size == least]
        return holder if holder in near else self._oldest(near)

    def _oldest(self, rows: Iterable[int]) -> int:
        """The row whose content is missed least."""
        if not self._window:
            return self.prefixes.oldest(rows)
        return min(rows, key=lambda row: (self.heard.used(row), row))

    def _save(self, row: int, ids: bytes = b"") -> list[Move]:
        """Copy what only this row holds, and what will hold `ids` does not, to the least missed free row."""
        least = self.prefixes.oldest(self._free())
        if least == row or self.prefixes.own(row, ids) < WORTH_COPYING:
            return []
        held = self.prefixes.held[row]
        assert held is not None
        move = Move(row, least, held.length, held.torn)
        self.prefixes.copy(row, least)
        return [move]

    def _shift(self, sequence: Sequence, window: range) -> list[Move]:
        source = sequence.slot
        target = self._oldest(row for row in window if self.owners[row] is None)
        heard = sequence.heard and self._window > 0
        moves = [*self._save(target), Move(source, target, sequence.computed, heard=heard)]
        self.prefixes.copy(source, target)
        self.prefixes.held[source] = None
        if heard:
            self.heard.copy(source, target)
        self._disown(sequence)
        self._own(target, sequence)
        return moves

    def _tokens(self, sequences: list[Sequence]) -> int:
        """What would be copied with them."""
        return sum(sequence.computed + self._window * sequence.heard for sequence in sequences)

    def _own(self, row: int, sequence: Sequence) -> None:
        self.owners[row], sequence.slot = sequence, row
        self.free -= 1

    def _disown(self, sequence: Sequence) -> None:
        self.owners[sequence.slot] = None
        sequence.slot = -1
        self.free += 1


def _outside(owned: list[Sequence], size: int, first: int) -> list[Sequence]:
    """Those that a window of `size` rows from `first` does not cover."""
    return [sequence for sequence in owned if not first <= sequence.slot < first + size]
