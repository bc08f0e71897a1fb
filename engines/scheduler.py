"""Decides what the graph computes next. Pure Python: knows sequences, slots and shapes, no tensor, no socket.

A sequence waits, gets a slot, goes through the graph in chunks until one token is left (`pending` 1), then
takes part in every decode step. It is let into a slot only with room for all its tokens, so that nothing
ever has to be thrown out. Chunks take turns with decode steps; a sequence that decodes alone guesses what it
says next, and has several tokens verified in one step. Before each of its chunks a prompt takes over
what any row holds of it by now, so that prompts with a common beginning compute that once, whoever is first.

A sequence that is to hear something does that first, unless a row has heard it already. The listener's runs
take turns with decode steps, too, one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from basert.messages import Failed, Submit
from engines.base import Reply
from engines.batch import Batch, Chunks, Move, Row, Sample, decode_row, draft_row, need_logits, row_of
from engines.lanes import Lanes
from engines.pace import Pace
from engines.prefix import Match, ids_of
from engines.prompts import Prompts
from engines.sequence import Sequence, admission
from engines.share import Share
from engines.slots import Slots
from engines.stats import Counters
from engines.windows import refuse_sound

if TYPE_CHECKING:
    from engines.adapters import Adapters
    from engines.constraints import Constraint


@dataclass(frozen=True)
class Limits:
    max_queue: int  # requests that may wait for a slot
    max_context: int
    vocab_size: int
    eos: frozenset[int]
    refuse_sound: Callable[[Submit], str] = refuse_sound  # why what is to be heard, or silence, is refused
    sot: int = -1  # the token after which a speech model says whether anybody speaks


class Scheduler:
    def __init__(
        self,
        slots: Slots,
        chunks: Chunks,
        score_chunks: Chunks,
        limits: Limits,
        counters: Counters,
        drafts: Iterable[int] = (),
        paced: bool = True,
        stepped: int = 0,
        adapters: Adapters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """drafts: buckets of tokens that may be verified at once; none: nothing is guessed. paced: chunks are
        as long as the streams beside them can wait. stepped: tokens up to which a prompt goes through decode
        steps, not through a chunk."""
        self.limits = limits
        self.draining = False
        self._slots = slots
        self._prompts = Prompts(chunks, score_chunks, slots.buckets)
        self._counters = counters
        self._clock = clock
        self._sequences: dict[tuple[int, int], Sequence] = {}
        self._waiting: Lanes[Sequence] = Lanes()
        self._moves: list[Move] = []  # to be done before the next batch
        self._since_decode = 0  # prefill tokens
        self._drafts = sorted(drafts)
        self._pace = Pace(chunks.buckets)
        self._paced = paced
        self._share = Share()
        self._stepped = stepped
        self._adapters = adapters

    def __len__(self) -> int:
        """Sequences that wait or run."""
        return len(self._sequences)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, peer: int, submit: Submit, constraint: Constraint | None = None) -> Failed | None:
        """Let a request in, or say why not. With a constraint only the model's own tokens end it."""
        refusal = self._refusal(peer, submit)
        if refusal is not None:
            self._counters.requests_refused += 1
            return refusal
        adapter = self._adapters.take(submit.adapter) if self._adapters and submit.adapter else None
        if submit.adapter and adapter is None:
            self._counters.requests_refused += 1
            return Failed(
                submit.id, "no_adapter", f"The adapter {submit.adapter!r} is not loaded; load it first."
            )
        prompt, limits = submit.prompt, self.limits
        sequence = Sequence(
            peer,
            submit,
            eos=frozenset(submit.stop_ids) | (limits.eos if constraint or not submit.ignore_eos else set()),
            limit=min(len(prompt) + submit.max_tokens, limits.max_context),
            arrived=self._clock(),
            tokens=list(prompt),
            ids=ids_of(prompt, submit.cache_salt, adapter.info.digest if adapter else ""),
            constraint=constraint,
            heard=submit.sound is None,
            adapter=adapter,
        )
        if submit.sound is not None and limits.sot in prompt:
            sequence.sot = len(prompt) - 1 - prompt[::-1].index(limits.sot)
        sequence.stepped = len(prompt) <= self._stepped
        sequence.lone = sequence.stepped or self._prompts.cuts(sequence).lone(len(prompt))
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
        elif sequence.prefilling:
            self._prompts.remove(sequence)
        self._counters.requests_cancelled += 1
        self._end(sequence)

    def leave(self, peer: int) -> None:
        """Cancel all that a lost peer had asked for."""
        for key in [key for key in self._sequences if key[0] == peer]:
            self.cancel(*key)

    def next_batch(self) -> Batch | None:
        """Admit what fits, then choose: a decode step, or a chunk when that is due. None: nothing to do."""
        self._admit()
        self._moves += self._slots.compact()
        decoding = self._decoding()
        while self._prompts and (self._since_decode < (limit := self._limit(decoding)) or not decoding):
            head = self._prompts.next()
            self._catch_up(head)
            if not head.heard:
                self._prompts.remove(head)
                return self._listen(head)
            if head.prefilling:
                return self._prefill(head, limit)
            self._prompts.remove(head)  # all but its last token was there
            decoding.append(head)
        if len(decoding) == 1 and (row := draft_row(decoding[0], self._drafts)):
            return self._verify(row)
        return self._decode(decoding) if decoding else None

    def _decoding(self) -> list[Sequence]:
        """Sequences whose next token is due; while the batch lane has to rest, of the others only."""
        owners = [owner for owner in self._slots.owners if owner is not None]
        if all(owner.priority > 0 for owner in owners):
            self._share.forget()
        resting = self._prompts.resting = not self._share.due
        return [owner for owner in owners if not owner.prefilling and not (resting and owner.priority > 0)]

    def note(self, batch: Batch, seconds: float) -> None:
        """How long a batch ran, from which the next chunks get their length, and the lanes their turns."""
        if batch.sound is None:
            self._pace.note(len(batch.rows), batch.chunk, seconds)
        self._share.note(seconds, self._own(batch, seconds))

    def _own(self, batch: Batch, seconds: float) -> float:
        """Of a run's seconds, those that it would have taken without the batch lane. What lies in the window
        while that rests costs nothing more."""
        interactive = sum(row.sequence is not None and row.sequence.priority <= 0 for row in batch.rows)
        if self._prompts.resting:
            return seconds
        if batch.chunk == 1 and interactive:
            return min(seconds, self._pace.step(interactive))
        return seconds * interactive / len(batch.rows)

    def apply(self, batch: Batch, samples: list[Sample]) -> list[Reply]:
        """Book what a batch yielded, a sample for each row, and end the sequences that are complete."""
        self._counters.ran(batch)
        if batch.sound is not None and (listening := batch.rows[0].sequence) is not None:
            listening.heard = True
            self._slots.heard.put(listening.slot, batch.sound)
        return [
            reply
            for row, sample in zip(batch.rows, samples, strict=True)
            if row.sequence is not None
            for reply in self._advance(row.sequence, row, sample)
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
        if reason := self.limits.refuse_sound(submit):
            return Failed(submit.id, "invalid", reason)
        if self.waiting >= self.limits.max_queue + self._slots.free:
            return Failed(submit.id, "queue_full", f"{self.waiting} requests are waiting; try again later.")
        return None

    def _admit(self) -> None:
        while self._waiting and self._slots.free:
            sequence = self._waiting.pop()
            found = self._found(sequence)
            self._moves += self._slots.take(sequence, found)
            self._book(sequence, found)
            self._counters.windows_reused += sequence.heard and sequence.submit.sound is not None
            self._counters.requests_admitted += 1
            self._counters.prefix_queries += self._slots.prefixes.keep and not sequence.scoring
            self._counters.prompt_tokens += len(sequence.tokens)
            self._counters.queue_seconds.add(self._clock() - sequence.arrived)
            if sequence.prefilling:
                self._prompts.add(sequence)

    def _catch_up(self, sequence: Sequence) -> None:
        """Take over what other rows have come to hold of a prompt since its last chunk, or have heard."""
        if not sequence.heard:
            self._moves += self._slots.recall(sequence)
            self._counters.windows_reused += sequence.heard
        if (found := self._found(sequence)).length:
            self._moves.append(self._slots.share(sequence, found))
            self._book(sequence, found)

    def _found(self, sequence: Sequence) -> Match:
        """What the cache holds of a prompt beyond what is computed, if that is worth copying; all but the
        last token at most. A prompt that is scored needs the logits of every position: it finds nothing."""
        if sequence.scoring:
            return Match()
        found = self._slots.prefixes.best(sequence.ids, len(sequence.tokens) - 1, besides=sequence.slot)
        return found if self._prompts.worth(sequence, found.length) else Match()

    def _book(self, sequence: Sequence, found: Match) -> None:
        if found.length:
            self._counters.prefix_hits += not sequence.cached
            self._counters.cached_tokens += found.length - sequence.computed
            sequence.cached += found.length - sequence.computed
            sequence.computed = found.length

    def _limit(self, decoding: list[Sequence]) -> int:
        """Prompt tokens before the next decode step. Streams wait for few; but where as many prompts wait as
        streams run, what is best for all is to be done with them soon."""
        if not self._paced or len(self._prompts) >= len(decoding):
            return self._prompts.chunks.longest
        return self._pace.longest(len(decoding), len(self._prompts))

    def _verify(self, row: Row) -> Batch:
        assert row.sequence is not None
        self._since_decode = 0
        size = next(size for size in self._drafts if size >= len(row.tokens))
        return Batch(row.sequence.slot, size, [row], need_logits([row]), moves=self._due_moves())

    def _listen(self, sequence: Sequence) -> Batch:
        sound = sequence.submit.sound
        assert sound is not None
        self._since_decode += self._prompts.chunks.longest  # streams go on after it
        row = Row(sequence.computed, [], 0, sequence)
        return Batch(sequence.slot, 0, [row], moves=self._due_moves(), sound=sound.features)

    def _prefill(self, head: Sequence, limit: int) -> Batch:
        past, fresh, size = self._prompts.chunk(head, limit)
        group = self._prompts.group(head, limit)
        for sequence in group:
            self._prompts.remove(sequence)
        rows = [row_of(sequence, past, fresh if sequence is head else sequence.pending) for sequence in group]
        self._since_decode += size * len(rows)
        return Batch(group[0].slot, size, rows, need_logits(rows), head.scoring, self._due_moves())

    def _decode(self, decoding: list[Sequence]) -> Batch:
        self._since_decode = 0
        first, size = self._slots.window([sequence.slot for sequence in decoding])
        rows = [decode_row(owner) for owner in self._slots.owners[first : first + size]]
        aside = self._slots.overrun(first, size)
        return Batch(first, 1, rows, need_logits(rows), moves=self._due_moves(), aside=aside)

    def _due_moves(self) -> list[Move]:
        moves, self._moves = self._moves, []
        return moves

    def _advance(self, sequence: Sequence, row: Row, sample: Sample) -> list[Reply]:
        if sample.held or sample.error:
            return self._stay(sequence, sample)
        if sequence.prefilling:
            self._slots.prefixes.grow(sequence.slot, row.past + len(row.tokens))
        sequence.computed = row.past + len(row.tokens)
        if row.drafted:
            self._learn(sequence, row, accepted=len(sample.tokens) - 1)
        sequence.scores += sample.scores
        if row.draws:
            sequence.tokens += sample.tokens
            self._counters.generated_tokens += len(sample.tokens)
        elif sequence.pending:  # the prompt goes on
            if sequence.prefilling:
                self._prompts.add(sequence)
            return []
        return self._told(sequence, sample)

    def _stay(self, sequence: Sequence, sample: Sample) -> list[Reply]:
        """A row that yielded nothing: it is run once more, or its sequence ends."""
        if sample.error:
            grammar = sequence.submit.grammar
            self._counters.requests_failed += 1
            self._end(sequence)
            failed = Failed(sequence.submit.id, "invalid", sample.error, grammar.field if grammar else "")
            return [(sequence.peer, failed)]
        self._counters.held_tokens += 1
        if sequence.prefilling:
            self._prompts.add(sequence)
        return []

    def _learn(self, sequence: Sequence, row: Row, accepted: int) -> None:
        """Only what was guessed right stays in the cache."""
        sequence.computed -= row.drafted - accepted
        sequence.drafter.learn(row.drafted, accepted)
        self._counters.drafted_tokens += row.drafted
        self._counters.accepted_tokens += accepted
        self._counters.padded_tokens += row.drafted - accepted

    def _told(self, sequence: Sequence, sample: Sample) -> list[Reply]:
        replies = sequence.tell(sample.tokens, sample.logprobs, sample.alignment)
        if sequence.finish:
            self._counters.requests_finished += 1
            self._end(sequence)
        return [(sequence.peer, reply) for reply in replies]

    def _end(self, sequence: Sequence) -> None:
        del self._sequences[sequence.key]
        if self._adapters is not None and sequence.adapter is not None:
            self._adapters.give_back(sequence.adapter)
        if sequence.slot >= 0:
            self._slots.release(sequence)
