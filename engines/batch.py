"""What one run of the graph is to compute, as plain numbers; and how a prompt is cut into chunks.

A batch is a window of adjacent cache rows. Three shapes occur, the ones that GroupQueryAttention takes:

    decode           [rows, 1]       every row has its own past; idle rows write where it does no harm
    chunk            [1, chunk]      any past; padding lies behind the last token
    first prefill    [rows, chunk]   no row has a past; padded on the right
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from engines.sequence import Sequence

# What one more run of the graph costs beside its tokens, in tokens (measured: 6 for W8A8, 14 for fp32).
RUN_COST = 12


class Row(NamedTuple):
    """One cache row of a window."""

    past: int  # tokens in the cache before this run
    tokens: list[int]  # those that this run computes, at least one
    fresh: int  # how many of them, the last ones, are new; 0 in an idle row
    sequence: Sequence | None = None
    draws: bool = False  # the next token is wanted


class Move(NamedTuple):
    """Copy the first `length` tokens of one cache row over another's."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    first: int  # the window's first cache row
    chunk: int  # tokens per row, padding included
    rows: list[Row]
    logits: bool = False  # the logits are needed, not only the best token
    score: bool = False  # of every position; only with one row
    moves: Iterable[Move] = ()  # to be done before

    @property
    def computed(self) -> int:
        """Tokens that go through the graph, padding included."""
        return len(self.rows) * self.chunk

    @property
    def padded(self) -> int:
        """Of these, the ones that are computed for nothing."""
        return self.computed - sum(row.fresh for row in self.rows)


def row_of(sequence: Sequence, past: int, fresh: int) -> Row:
    """The row that computes `fresh` more tokens, and again those between `past` and what is computed."""
    end = sequence.computed + fresh
    draws = end == len(sequence.tokens) < sequence.limit
    return Row(past, sequence.tokens[past:end], fresh, sequence, draws)


def decode_row(owner: Sequence | None) -> Row:
    """A row of a decode window. One that does not decode writes a token of garbage: in a free slot that does
    no harm; behind the past of a prompt that is still being computed, its next chunk overwrites it."""
    if owner is None:
        return Row(0, [0], 0)
    if owner.pending > 1:
        return Row(owner.computed, [0], 0)
    return row_of(owner, owner.computed, 1)


def need_logits(rows: Iterable[Row]) -> bool:
    return any(
        row.sequence is not None and (row.sequence.scoring or (row.draws and row.sequence.needs_logits))
        for row in rows
    )


class Chunks:
    """Cuts prompts into chunks of `buckets` tokens, the largest `longest`, at least total cost.

    The cuts depend on nothing but the number of tokens: a sequence goes through the same shapes, and gets
    the same bits, whatever else runs.
    """

    def __init__(self, buckets: Iterable[int], longest: int, max_context: int) -> None:
        fitting = sorted({size for size in buckets if 1 < size <= min(longest, max_context)})
        self.buckets = fitting or [min(longest, max_context)]
        self.max_context = max_context
        self._plan = cache(self._cheapest)

    @property
    def longest(self) -> int:
        return self.buckets[-1]

    def size(self, pending: int) -> int:
        """The chunk, a bucket, to run next when `pending` tokens are to be computed."""
        return self._plan(min(pending, self.longest))[1]

    def row(self, tokens: list[int], computed: int) -> tuple[int, int, int]:
        """The next chunk as (past, fresh, chunk). Where it would overrun the cache's end it begins earlier
        and computes some tokens once more: the shape stays a bucket."""
        chunk = self.size(len(tokens) - computed)
        fresh = min(chunk, len(tokens) - computed)
        return min(computed, self.max_context - chunk), fresh, chunk

    def _cheapest(self, pending: int) -> tuple[int, int]:
        """(cost, first chunk) of computing `pending` tokens; a last single token is a decode step."""
        if pending <= 1:
            return pending, 1
        return min((RUN_COST + size + self._plan(max(0, pending - size))[0], size) for size in self.buckets)
