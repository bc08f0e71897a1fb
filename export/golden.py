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
HEADROOM = {"fp32": 0.005, "w8a8": 1.5, "int4": 0.75}
"""How far an answer may lie off on another CPU, in standard deviations of a row of logits.

Other CPUs add floats in another order. A quantised graph rounds activations, so that a difference in the
seventh digit flips a step here and there, and more of them in every later layer. In these units, noise of
2e-7 on the norms' weights moved SmolLM2's logits by up to 3e-5 (fp32), 0.5 (w8a8) and 0.25 (int4), Gemma 3
270M's by up to 1.0 (w8a8).
"""


def make_golden(checkpoint: Path, graph: Path, variant: str) -> Golden:
    """Cases from the slot graph in folder `graph`; prompts are evaluation text in `checkpoint`'s tokens."""
    ids = token_ids(checkpoint, prose.evaluation())
    starts = [sum(LENGTHS[:index]) for index in range(len(LENGTHS))]
    prompts = [ids[start : start + length] for start, length in zip(starts, LENGTHS, strict=True)]
    return golden_of(prompts, graph, variant)


def golden_of(prompts: Sequence[Sequence[int]], graph: Path, variant: str) -> Golden:
    """`make_golden` for prompts of one's own, each of two tokens or more."""
    runner = SlotRunner(graph, slots=1, max_context=max(len(prompt) for prompt in prompts))
    made = [case_of(prompt, runner) for prompt in prompts]
    return Golden(HEADROOM[variant] * max(spread for _, spread in made), [case for case, _ in made])


def case_of(prompt: Sequence[int], runner: SlotRunner) -> tuple[GoldenCase, float]:
    """What a runner's first slot answers, and the standard deviation of these logits."""
    runner.chunk(0, prompt[:-1], 0, rows=[0])
    logits = runner.decode([prompt[-1]], [len(prompt) - 1])[0]
    kept = _chosen(logits)
    return GoldenCase(list(prompt), kept, [float(logits[i]) for i in kept]), float(logits.std())


def _chosen(logits: Logits) -> list[int]:
    best = np.argsort(logits)[: -KEPT // 2 - 1 : -1]
    others = np.linspace(0, len(logits) - 1, KEPT // 2).astype(int)
    return [int(i) for i in dict.fromkeys([*best, *others])]
