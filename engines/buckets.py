"""What the shapes of an encoder's graph cost, and which is the cheapest that holds so much. Pure Python.

Costs are measured when the engine starts, and follow slowly what runs take. A machine that is slower for all
shapes at once (other work beside) changes no choice: `load` keeps that apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

WEIGHT = 0.05  # of the newest run in a bucket's cost
LOAD_WEIGHT = 0.2  # of the newest run in what the machine's load is
FURTHEST = 2.0  # a run counts for so many times its cost, or for a so-manieth, at most
CLOSE = 1.1  # what seems cheaper by less than this is measured so: the smaller bucket is taken
STALE = 32  # runs between two looks at what is cheapest


class Bucket(NamedTuple):
    rows: int
    tokens: int  # of a row

    @property
    def size(self) -> int:
        """Tokens that go through the graph, padding included."""
        return self.rows * self.tokens


class Choice(NamedTuple):
    """The cheapest way to run some rows."""

    rows: int  # at most so many
    seconds: float
    bucket: Bucket


class Costs:
    def __init__(self, seconds: Mapping[Bucket, float]) -> None:
        """seconds: what a run of each took."""
        self._seconds = dict(seconds)
        self._load = 1.0
        self._runs = 0
        self._lengths = sorted({bucket.tokens for bucket in seconds})
        self._choices: dict[int, list[Choice]] = {}
        self._choose()

    @property
    def buckets(self) -> list[Bucket]:
        return sorted(self._seconds)

    @property
    def longest(self) -> int:
        """Tokens of the longest input that fits."""
        return self._lengths[-1]

    @property
    def most_rows(self) -> int:
        return max(bucket.rows for bucket in self._seconds)

    def choices(self, length: int) -> list[Choice]:
        """For inputs of up to `length` tokens: for each number of rows a bucket, by rows, ascending."""
        return self._choices[next(tokens for tokens in self._lengths if tokens >= length)]

    def expected(self, bucket: Bucket) -> float:
        """Seconds that a run takes now."""
        return self._seconds[bucket] * self._load

    def note(self, bucket: Bucket, seconds: float) -> None:
        """A run took so long."""
        known = self._seconds[bucket]
        within = min(max(seconds / known, self._load / FURTHEST), self._load * FURTHEST)
        self._seconds[bucket] += WEIGHT * known * (within / self._load - 1)
        self._load += LOAD_WEIGHT * (within - self._load)
        self._runs += 1
        if self._runs % STALE == 0:
            self._choose()

    def _choose(self) -> None:
        self._choices = {length: list(self._cheapest(length)) for length in self._lengths}

    def _cheapest(self, length: int) -> Iterable[Choice]:
        """A bucket that holds more and is cheaper serves in another's place."""
        fitting = [bucket for bucket in self._seconds if bucket.tokens >= length]
        for rows in sorted({bucket.rows for bucket in fitting}):
            holding = [bucket for bucket in fitting if bucket.rows >= rows]
            least = min(self._seconds[bucket] for bucket in holding)
            close = (bucket for bucket in holding if self._seconds[bucket] <= CLOSE * least)
            yield Choice(rows, least, min(close, key=lambda bucket: bucket.size))
