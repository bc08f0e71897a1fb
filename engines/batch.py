"""What one run of the graph is to compute, as plain numbers; and how a prompt is cut into chunks.

A batch is a window of adjacent cache rows. Three shapes occur, the ones that GroupQueryAttention takes:

    decode           [rows, 1]       every row has its own past; idle rows write where it does no harm
    chunk            [1, chunk]      any past; padding lies behind the last token; a draft is a small one
    first prefill    [rows, chunk]   no row has a past; padded on the right

Of a speech model a batch may instead be a window of sound that one row is to hear: the listener's run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from basert.messages import TokenLogprob
from engines.sequence import Sequence
from engines.units import Units, covering

# What one more run of the graph costs beside its tokens, in tokens (measured: 14 for fp32, 24 for W8A8).
RUN_COST = 24


class Row(NamedTuple):
    """One cache row of a window."""

    past: int  # tokens in the cache before this run
    tokens: list[int]  # those that this run computes, at least one
    fresh: int  # how many of them, the last ones, are new; 0 in an idle row
    sequence: Sequence | None = None
    draws: bool = False  # the next token is wanted
    drafted: int = 0  # how many of the tokens, the last ones, are guesses to be verified
    sot: int = -1  # the token whose logits say whether anybody speaks, if it is among them


class Sample(NamedTuple):
    """What a run yielded for one row."""

    tokens: tuple[int, ...] = ()  # the next one, if the row draws, and what a draft had guessed right
    logprobs: tuple[TokenLogprob, ...] = ()  # of these, if they are wanted
    held: bool = False  # its grammar has not said yet what may come: the row is to be run once more
    error: str = ""  # why the sequence cannot go on
    scores: Iterable[TokenLogprob] = ()  # of the prompt tokens in this chunk
    alignment: bytes = b""  # of the token drawn, as in basert.messages.Tokens, if it is wanted


class Move(NamedTuple):
    """Copy the first `length` tokens of one cache row over another's, or (one row) mend its first token."""

    source: int
    target: int
    length: int
    torn: bool = False  # the source's first token lies aside, see Batch.aside
    heard: bool = False  # with what the source has heard


@dataclass(frozen=True, slots=True)
class Batch:
    first: int  # the window's first cache row
    chunk: int  # tokens per row, padding included
    rows: list[Row]
    logits: bool = False  # the logits are needed, not only the best token
    score: bool = False  # of every position; only with one row
    moves: Iterable[Move] = ()  # to be done before, in this order
    aside: Iterable[int] = ()  # rows whose first token must be kept, after the moves: the batch overwrites it
    sound: bytes | None = None  # what its only row is to hear (Sound.features); then its chunk is 0

    @property
    def verifies(self) -> bool:
        """Whether its only row holds a draft: what every position of it draws is wanted."""
        return self.rows[0].drafted > 0

    @property
    def asks_sot(self) -> bool:
        """Whether the logits of a row's sot are wanted beside those of its last token."""
        return self.chunk > 1 and any(0 <= row.sot < len(row.tokens) - 1 for row in self.rows)

    @property
    def aligned(self) -> list[int]:
        """Rows for whose next token it is wanted where in the sound it is."""
        rows = enumerate(self.rows)
        return [i for i, row in rows if row.draws and row.sequence is not None and row.sequence.aligned]

    @property
    def units(self) -> Units:
        """The stretch that holds the adapters of all rows; empty if none has one."""
        owners = [row.sequence for row in self.rows if row.sequence is not None]
        return covering(owner.adapter.units for owner in owners if owner.adapter is not None)

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
    sot = sequence.sot - past if past <= sequence.sot < end else -1
    return Row(past, sequence.tokens[past:end], fresh, sequence, draws, sot=sot)


def decode_row(owner: Sequence | None) -> Row:
    """A row of a decode window. One that does not decode writes a token of garbage: behind the past of a
    prompt that is still being computed, where its next chunk overwrites it; in a free slot over the first
    token, which is put aside if it is worth anything: behind 1,000 tokens each step would cost 2 ms more."""
    if owner is None:
        return Row(0, [0], 0)
    if owner.prefilling:
        return Row(owner.computed, [0], 0)
    return row_of(owner, owner.computed, 1)


def draft_row(sequence: Sequence, sizes: Iterable[int]) -> Row | None:
    """A sequence's row with a draft behind its last token; None where there is none, or no room for it.

    sizes: tokens that may be verified at once, ascending. It must decode alone: GroupQueryAttention takes
    several tokens of one row, not of several that have a past, and many rows at once bring more than guesses.
    """
    fitting = [size for size in sizes if size <= sequence.limit - len(sequence.tokens)]
    if not (fitting and sequence.computed and sequence.generated):
        return None
    draft = _guess(sequence, fitting[-1] - 1)
    tokens = [sequence.tokens[-1], *draft]
    return Row(sequence.computed, tokens, len(tokens), sequence, True, len(draft)) if draft else None


def _guess(sequence: Sequence, most: int) -> list[int]:
    """What comes next: what the grammar leaves no choice about, else what was said before in such a place."""
    forced = sequence.constraint.forced(most) if sequence.constraint is not None else []
    return forced or sequence.drafter.draft(sequence.tokens, most)


def need_logits(rows: Iterable[Row]) -> bool:
    return any(
        row.sequence is not None
        and (row.sequence.scoring or (row.draws and row.sequence.needs_logits) or row.sot >= 0)
        for row in rows
    )


class Chunks:
    """Cuts prompts into chunks of `buckets` tokens, the largest `longest`, at least total cost.

    A token gets the same bits in a chunk of any size, and others in a decode step (measured, and tested). So
    what a prompt's tokens go through depends on nothing but their number, whatever else runs.
    """

    def __init__(self, buckets: Iterable[int], longest: int, max_context: int) -> None:
        fitting = sorted({size for size in buckets if 1 < size <= min(longest, max_context)})
        self.buckets = fitting or [min(longest, max_context)]
        self.max_context = max_context
        self._plan = cache(self._cheapest)

    @property
    def longest(self) -> int:
        return self.buckets[-1]

    def lone(self, length: int) -> bool:
        """Whether the last token of a prompt of `length` tokens is cheapest left to a decode step. It goes
        that way however much of the prompt the cache held: a chunk gives other last bits."""
        rest = (length - 1) % self.longest + 1
        return self._plan(rest, True)[0] <= self._plan(rest, False)[0]

    def cost(self, pending: int, lone: bool) -> int:
        """Of computing the last `pending` tokens of a prompt, at least one, in tokens."""
        whole, rest = divmod(pending - 1, self.longest)
        return whole * (RUN_COST + self.longest) + self._plan(rest + 1, lone)[0]

    def size(self, pending: int, lone: bool, limit: int = 0) -> int:
        """The chunk, a bucket (or 1), to run next when `pending` tokens are to be computed; `limit`, a
        bucket, is the longest that may be chosen now."""
        chunk = self.longest if pending > self.longest else self._plan(pending, lone)[1]
        return min(chunk, limit or chunk)

    def row(
        self, tokens: list[int], computed: int, lone: bool | None = None, limit: int = 0
    ) -> tuple[int, int, int]:
        """A prompt's next chunk as (past, fresh, chunk). Where it would overrun the cache's end it begins
        earlier and computes some tokens once more: the shape stays a bucket."""
        lone = self.lone(len(tokens)) if lone is None else lone
        pending = len(tokens) - computed
        chunk = self.size(pending, lone, limit)
        fresh = min(chunk, max(1, pending - lone))
        return min(computed, self.max_context - chunk), fresh, chunk

    def _cheapest(self, pending: int, lone: bool) -> tuple[int, int]:
        """(cost, first chunk) of computing `pending` tokens, the last of them alone or in a chunk."""
        if pending <= lone:
            return pending, 1
        return min(
            (RUN_COST + size + self._plan(max(int(lone), pending - size), lone)[0], size)
            for size in self.buckets
        )
