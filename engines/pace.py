"""How long a prompt's chunk may be while streams run: what runs took tells. Knows shapes and seconds only.

A stream waits for one chunk between two of its tokens, so a chunk may take STALL times as long as a decode
step: then a gap is hardly over 1 + STALL usual ones. Short chunks take long in all, so that where many
prompts wait beside few streams, chunks may be longer.
"""

from __future__ import annotations

from collections.abc import Sequence

STALL = 2.0
EACH = 4  # a prompt that waits weighs as much as so many streams that stall
WEIGHT = 0.2  # of the newest run


class Pace:
    def __init__(self, chunks: Sequence[int]) -> None:
        """chunks: the buckets, ascending."""
        self._chunks = chunks
        self._seconds: dict[tuple[int, int], float] = {}  # (rows, chunk) -> moving average

    def note(self, rows: int, chunk: int, seconds: float) -> None:
        """A run of this shape took so long; what is neither a decode step nor a bucket tells nothing."""
        if chunk > 1 and chunk not in self._chunks:
            return
        known = self._seconds.get((rows, chunk), seconds)
        self._seconds[rows, chunk] = known + WEIGHT * (seconds - known)

    def longest(self, rows: int, waiting: int = 1) -> int:
        """The longest chunk between decode steps of `rows` rows while `waiting` prompts wait. The shortest
        bucket is always allowed."""
        allowed = STALL * self.step(rows) * max(1.0, EACH * waiting / rows)
        fitting = [chunk for chunk in self._chunks if self._chunk(chunk, rows) <= allowed]
        return max(fitting, default=self._chunks[0])

    def step(self, rows: int) -> float:
        """Seconds of a decode step; of the nearest shape that has run, if this one has not."""
        known = [shape for shape in self._seconds if shape[1] == 1]
        nearest = min(known, key=lambda shape: abs(shape[0] - rows), default=None)
        return self._seconds[nearest] if nearest else 0.0

    def _chunk(self, chunk: int, rows: int) -> float:
        """Seconds of a chunk; in proportion to its tokens, from the nearest one that has run. Before any has,
        the shortest is taken for a decode step: the first prompt beside streams shall not hold them up."""
        known = [size for several, size in self._seconds if several == 1 and size > 1]
        nearest = min(known, key=lambda size: abs(size - chunk), default=None)
        if nearest is None:
            return self.step(rows) * chunk / self._chunks[0]
        return self._seconds[1, nearest] * chunk / nearest
