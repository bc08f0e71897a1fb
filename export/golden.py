"""Golden cases: what the exported graph itself answers, to be asked again whenever an engine loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from basert.manifest import Golden, GoldenCase
from export import prose
from export.checkpoint import token_ids
from export.runner import Logits, SlotRunner

LENGTHS = (5, 24, 64)  # tokens of each case's prompt
KEPT = 16  # logits of each case: the largest half, and others spread over the vocabulary
CHUNKS = (7, 16)  # other ways through the same prompt, whose float order differs
FLOORS = {"fp32": 0.02, "w8a8": 0.5, "int4": 0.5}
HEADROOM = 4.0
"""Another CPU adds floats in another order. A quantised graph rounds activations, so that a difference in the
seventh digit can grow to a whole step in a later layer: how much, shows when chunks are cut differently."""


def make_golden(checkpoint: Path, graph: Path, variant: str) -> Golden:
    """Cases from the slot graph in folder `graph`; prompts are evaluation text in `checkpoint`'s tokens."""
    ids = token_ids(checkpoint, prose.evaluation())
    starts = [sum(LENGTHS[:index]) for index in range(len(LENGTHS))]
    prompts = [ids[start : start + length] for start, length in zip(starts, LENGTHS, strict=True)]
    return golden_of(prompts, graph, variant)


def golden_of(prompts: Sequence[Sequence[int]], graph: Path, variant: str) -> Golden:
    """`make_golden` for prompts of one's own, each of two tokens or more."""
    longest = max(len(prompt) for prompt in prompts)
    runner = SlotRunner(graph, slots=1, max_context=longest)
    cases, spread = [], 0.0
    for prompt in prompts:
        logits = _answer(runner, prompt, len(prompt))
        kept = _chosen(logits)
        cases.append(GoldenCase(prompt=list(prompt), ids=kept, logits=[float(logits[i]) for i in kept]))
        for size in CHUNKS:
            spread = max(spread, float(np.abs(_answer(runner, prompt, size) - logits)[kept].max()))
    return Golden(atol=max(FLOORS[variant], HEADROOM * spread), cases=cases)


def _answer(runner: SlotRunner, prompt: Sequence[int], size: int) -> Logits:
    """All but the last token in chunks of at most `size`, the last one decoded; float32 [vocab]."""
    runner.prefill(0, prompt[:-1], size)
    return np.asarray(runner.decode([prompt[-1]], [len(prompt) - 1])[0])


def _chosen(logits: Logits) -> list[int]:
    best = np.argsort(logits)[: -KEPT // 2 - 1 : -1]
    others = np.linspace(0, len(logits) - 1, KEPT // 2).astype(int)
    return [int(i) for i in dict.fromkeys([*best, *others])]
