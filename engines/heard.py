"""Which window of sound each cache row has heard. Knows bytes and rows; no tensor, no queue.

Windows are compared as strings of bytes. That is memcmp: two that differ do so early, two that are the same
(1 MB) take 50 us; a hash would take 1 ms for each request.
"""

from __future__ import annotations

from collections.abc import Iterable


class Heard:
    """A free row keeps what it has heard until it hears something else."""

    def __init__(self, rows: int) -> None:
        self._sounds: list[bytes | None] = [None] * rows
        self._used = [0] * rows  # when last, in uses; 0: holds nothing
        self._uses = 0

    def find(self, sound: bytes, preferred: Iterable[int] = ()) -> int:
        """A row that has heard this window, one of the preferred ones if any of these has; -1: none."""
        rows = [row for row, heard in enumerate(self._sounds) if heard == sound]
        return next((row for row in preferred if row in rows), rows[0] if rows else -1)

    def put(self, row: int, sound: bytes) -> None:
        self._sounds[row] = sound
        self.use(row)

    def use(self, row: int) -> None:
        if self._sounds[row] is not None:
            self._uses += 1
            self._used[row] = self._uses

    def drop(self, row: int) -> None:
        """Nobody knows what the row holds."""
        self._sounds[row], self._used[row] = None, 0

    def copy(self, source: int, target: int) -> None:
        """The target has heard what the source has heard."""
        self._sounds[target], self._used[target] = self._sounds[source], self._used[source]

    def used(self, row: int) -> int:
        """The higher, the later; 0 for a row that has heard nothing."""
        return self._used[row]
