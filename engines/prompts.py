"""Prompts on their way through the graph: whose chunk comes next, and which go together. Knows no cache."""

from __future__ import annotations

from collections.abc import Iterable

from engines.batch import Chunks
from engines.prefix import common
from engines.sequence import Sequence

OLDEST_TURN = 4  # every fourth chunk is the oldest prompt's
COPIED = 100  # tokens are copied from row to row in the time that one takes to compute (400 in 8 bits)


class Prompts:
    def __init__(self, chunks: Chunks, score_chunks: Chunks, buckets: Iterable[int]) -> None:
        """score_chunks: their logits are kept for every position, so these may be smaller. buckets: how many
        rows a first prefill may have."""
        self.chunks = chunks
        self._score_chunks = score_chunks
        self._buckets = [1, *buckets]
        self._sequences: list[Sequence] = []
        self._turns = 0
        self.resting = False  # the batch lane's are as if they were not there

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def _ready(self) -> list[Sequence]:
        if not self.resting:
            return self._sequences
        return [sequence for sequence in self._sequences if sequence.priority <= 0]

    def add(self, sequence: Sequence) -> None:
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        self._sequences.remove(sequence)

    def cuts(self, sequence: Sequence) -> Chunks:
        """What its prompt is cut into chunks by."""
        return self._score_chunks if sequence.scoring else self.chunks

    def worth(self, sequence: Sequence, length: int) -> bool:
        """Whether copying the first `length` tokens of its prompt takes less time than it saves."""
        if length <= sequence.computed:
            return False
        cuts, lone = self.cuts(sequence), sequence.lone
        spared = cuts.cost(sequence.pending, lone) - cuts.cost(len(sequence.tokens) - length, lone)
        return spared * COPIED > length

    def next(self) -> Sequence:
        """The shortest remainder is computed next, but now and then the one that has waited longest. What has
        heard is nearer to its end than what has not."""
        self._turns += 1
        if self._turns % OLDEST_TURN == 0:
            return min(self._ready, key=lambda prompt: prompt.arrived)
        return min(self._ready, key=lambda prompt: (prompt.priority, not prompt.heard, prompt.pending))

    def chunk(self, sequence: Sequence, limit: int = 0) -> tuple[int, int, int]:
        """The next one of a prompt, as (past, fresh, size); limit: see Chunks.size."""
        return self.cuts(sequence).row(sequence.tokens, sequence.computed, sequence.lone, limit)

    def group(self, head: Sequence, limit: int) -> list[Sequence]:
        """`head`, and if its whole prompt takes one chunk, the ones in the slots beside it of which that is
        true too: `limit` tokens in all. One that can use what another of them computes is none of them."""
        _, fresh, size = self.chunk(head, limit)
        if head.scoring or fresh < len(head.tokens):
            return [head]
        whole = {other.slot: other for other in self._ready if self._whole(other, size)}
        group = {head.slot: head}
        for step in (-1, 1):
            row = head.slot + step
            while (other := whole.get(row)) and not any(self._profits(other, one) for one in group.values()):
                group[row] = other
                row += step
        most = min(len(group), max(1, limit // size))
        count = max(bucket for bucket in self._buckets if bucket <= most)
        first = max(min(group), head.slot - count + 1)
        return [group[row] for row in range(first, first + count)]

    def _whole(self, sequence: Sequence, size: int) -> bool:
        alone = sequence.scoring or not sequence.heard
        return not alone and self.chunk(sequence) == (0, len(sequence.tokens), size)

    def _profits(self, sequence: Sequence, other: Sequence) -> bool:
        shared = min(common(sequence.ids, other.ids), len(sequence.tokens) - 1)
        return self.worth(sequence, shared)
