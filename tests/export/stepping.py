"""Whole prompts through a slot graph, whole answers out of the reference."""

from __future__ import annotations

from collections.abc import Sequence

from export.reference import Reference
from export.runner import Logits, SlotRunner, chunks


def prefill(runner: SlotRunner, slot: int, ids: Sequence[int], size: int) -> Logits:
    """A prompt in chunks of at most `size`; what follows it, float32 [vocab]."""
    rows = [runner.chunk(slot, part, past, rows=[len(part) - 1]) for past, part in chunks(ids, size)]
    last: Logits = rows[-1][0]
    return last


def greedy(reference: Reference, prompt: Sequence[int], count: int) -> list[int]:
    """The `count` most likely ids after `prompt`, one after another, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(reference.logits(ids)[-1].argmax()))
    return ids[len(prompt) :]
