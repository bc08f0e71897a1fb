"""Decides what the graph computes next. Pure Python: knows sequences, slots and shapes, no tensor, no socket.

A sequence waits, gets a slot, goes through the graph in chunks until one token is left (`pending` 1), then
takes part in every decode step. It is let into a slot only with room for all its tokens, so that nothing
ever has to be thrown out. Chunks take turns with decode steps; the shortest prompt goes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from basert.messages import Failed, Message, Submit, TokenLogprob, Tokens
from engines.batch import Batch, Chunks, Move, Row, decode_row, need_logits, row_of
from engines.lanes import Lanes
from engines.sequence import Sequence, admission
from engines.slots import Slots
from engines.stats import Counters

OLDEST_TURN = 4  # every fourth chunk is the oldest prompt's

Reply = tuple[int, Message]  # peer, message


class Sample(NamedTuple):
    """What a run yielded for one row."""

    token: int = -1  # the next token, if the row draws
    logprob: TokenLogprob | None = None
    scores: Iterable[TokenLogprob] = ()  # of the prompt tokens in this chunk


@dataclass(frozen=True)
class Limits:
    max_queue: int  # requests that may wait for a slot
    max_context: int
    vocab_size: int
    eos: frozenset[int]


class Scheduler:
    def __init__(
        self,
        slots: Slots,
        chunks: Chunks,
        score_chunks: Chunks,
        limits: Limits,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.draining = False
        self._slots = slots
        self._chunks = chunks
        self._score_chunks = score_chunks  # their logits are kept for every position, so these may be smaller
        self._counters = counters
        self._clock = clock
        self._sequences: dict[tuple[int, int], Sequence] = {}
        self._waiting = Lanes()
        self._prefilling: list[Sequence] = []
        self._prefills = 0
        self._since_decode = 0  # prefill tokens

    def __len__(self) -> int:
        """Sequences that wait or run."""
        return len(self._sequences)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, peer: int, submit: Submit) -> Failed | None:
        """Let a request in, or say why not."""
        refusal = self._refusal(peer, submit)
        if refusal is not None:
            self._counters.requests_refused += 1
            return refusal
        prompt, limits = submit.prompt, self.limits
        sequence = Sequence(
            peer,
            submit,
            eos=frozenset(submit.stop_ids) | (frozenset() if submit.ignore_eos else limits.eos),
            limit=min(len(prompt) + submit.max_tokens, limits.max_context),
            arrived=self._clock(),
            tokens=list(prompt),
        )
        self._sequences[sequence.key] = sequence
        self._waiting.push(sequence)
        return None

    def cancel(self, peer: int, number: int) -> None:
        """Forget a request, whatever its state; unknown ones have ended already."""
        sequence = self._sequences.get((peer, number))
        if sequence is None:
            return
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        elif sequence.pending > 1:
            self._prefilling.remove(sequence)
        self._counters.requests_cancelled += 1
        self._end(sequence)

    def leave(self, peer: int) -> None:
        """Cancel all that a lost peer had asked for."""
        for key in [key for key in self._sequences if key[0] == peer]:
            self.cancel(*key)

    def next_batch(self) -> Batch | None:
        """Admit what fits, then choose: a decode step, or a chunk when that is due. None: nothing to do."""
        self._admit()
        moves = self._slots.compact()
        decoding = [owner.slot for owner in self._slots.owners if owner is not None and owner.pending == 1]
        if self._prefilling and (not decoding or self._since_decode < self._chunks.longest):
            return self._prefill(moves)
        return self._decode(decoding, moves) if decoding else None

    def apply(self, batch: Batch, samples: list[Sample]) -> list[Reply]:
        """Book what a batch yielded, a sample for each row, and end the sequences that are complete."""
        self._count(batch)
        return [
            reply
            for row, sample in zip(batch.rows, samples, strict=True)
            if row.sequence is not None and (reply := self._advance(row.sequence, row, sample)) is not None
        ]

    def abandon(self, batch: Batch, reason: str) -> list[Reply]:
        """End the sequences of a batch that could not be run."""
        failed = [row.sequence for row in batch.rows if row.sequence is not None]
        for sequence in failed:
            self._counters.requests_failed += 1
            self._end(sequence)
        return [(sequence.peer, Failed(sequence.submit.id, "engine_failed", reason)) for sequence in failed]

    def kv_tokens(self) -> int:
        return sum(sequence.computed for sequence in self._slots.owners if sequence is not None)

    def _refusal(self, peer: int, submit: Submit) -> Failed | None:
        if self.draining:
            return Failed(submit.id, "draining", "This engine is stopping; try again.")
        if (peer, submit.id) in self._sequences:
            return Failed(submit.id, "invalid", f"Request {submit.id} is running already.")
        if refusal := admission(submit, self.limits.vocab_size, self.limits.max_context):
            return refusal
        if self.waiting >= self.limits.max_queue + self._slots.free:
            return Failed(submit.id, "queue_full", f"{self.waiting} requests are waiting; try again later.")
        return None

    def _admit(self) -> None:
        while self._waiting and self._slots.free:
            sequence = self._waiting.pop()
            self._slots.take(sequence)
            self._counters.requests_admitted += 1
            self._counters.prompt_tokens += len(sequence.tokens)
            self._counters.queue_seconds.add(self._clock() - sequence.arrived)
            if sequence.pending > 1:
                self._prefilling.append(sequence)

    def _prefill(self, moves: list[Move]) -> Batch:
        head = self._next_prompt()
        self._prefilling.remove(head)
        chunks = self._score_chunks if head.scoring else self._chunks
        past, fresh, size = chunks.row(head.tokens, head.computed)
        group = [head] if head.scoring or fresh < len(head.tokens) else self._neighbours(head, size)
        rows = [row_of(sequence, past, fresh if sequence is head else sequence.pending) for sequence in group]
        self._since_decode += size * len(rows)
        return Batch(group[0].slot, size, rows, need_logits(rows), head.scoring, moves)

    def _next_prompt(self) -> Sequence:
        """The shortest remainder is computed next, but now and then the one that has waited longest."""
        self._prefills += 1
        if self._prefills % OLDEST_TURN == 0:
            return min(self._prefilling, key=lambda prompt: prompt.arrived)
        return min(self._prefilling, key=lambda prompt: (prompt.submit.priority, prompt.pending))

    def _neighbours(self, head: Sequence, size: int) -> list[Sequence]:
        """`head` and others in the slots beside it whose whole prompts take one chunk of this size too."""
        alike = {
            other.slot: other
            for other in self._prefilling
            if not other.scoring
            and self._chunks.row(other.tokens, other.computed) == (0, len(other.tokens), size)
        }
        low = high = head.slot
        while low - 1 in alike:
            low -= 1
        while high + 1 in alike:
            high += 1
        most = min(high - low + 1, max(1, self._chunks.longest // size))
        count = max(bucket for bucket in (1, *self._slots.buckets) if bucket <= most)
        first = max(low, head.slot - count + 1)
        group = [alike.get(slot, head) for slot in range(first, first + count)]
        for sequence in group:
            if sequence is not head:
                self._prefilling.remove(sequence)
        return group

    def _decode(self, decoding: list[int], moves: list[Move]) -> Batch:
        self._since_decode = 0
        first, size = self._slots.window(decoding)
        rows = [decode_row(owner) for owner in self._slots.owners[first : first + size]]
        return Batch(first, 1, rows, need_logits(rows), moves=moves)

    def _advance(self, sequence: Sequence, row: Row, sample: Sample) -> Reply | None:
        sequence.computed = row.past + len(row.tokens)
        sequence.scores += sample.scores
        if row.draws:
            sequence.tokens.append(sample.token)
            self._counters.generated_tokens += 1
        elif sequence.pending:  # the prompt goes on
            if sequence.pending > 1:
                self._prefilling.append(sequence)
            return None
        reply = Tokens(
            sequence.submit.id,
            [sample.token] if row.draws else [],
            sequence.finish,
            [sample.logprob] if sample.logprob else [],
            sequence.scores,
        )
        sequence.scores = []
        if reply.finish:
            self._counters.requests_finished += 1
            self._end(sequence)
        return sequence.peer, reply

    def _end(self, sequence: Sequence) -> None:
        del self._sequences[sequence.key]
        if sequence.slot >= 0:
            self._slots.release(sequence)

    def _count(self, batch: Batch) -> None:
        counters = self._counters
        counters.computed_tokens += batch.computed
        counters.padded_tokens += batch.padded
        if batch.chunk > 1:
            counters.prefill_steps += 1
        else:
            counters.decode_steps += 1
            counters.batch_size.add(sum(1 for row in batch.rows if row.sequence is not None))
