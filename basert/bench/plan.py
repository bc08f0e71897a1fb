"""The whole benchmark: every cell once per repetition, in turn, so that a slow minute touches all alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from basert.bench.cells import Cell, DecodeCell, LoadCell, PrefillCell, Work
from basert.bench.load import Workload
from basert.bench.results import Report
from basert.progress import Show


@dataclass(frozen=True)
class Plan:
    """What to measure; lengths in tokens."""

    batches: Sequence[int]
    prompt_tokens: Sequence[int]
    output_tokens: int
    concurrencies: Sequence[int]
    load_prompt_tokens: int
    load_output_tokens: int
    shared_prefix: int  # of the load prompts' tokens, those that are alike
    requests: int  # of each client of a level, in each repetition
    slots: int  # the server's: larger batches are left out
    max_context: int  # the server's: longer cells are left out
    constrained: bool = False  # measure decoding by a JSON schema, too


def cells_of(plan: Plan, skipped: list[str]) -> list[Cell[Any, Workload]]:
    """The plan's cells, table by table; adds a line to `skipped` for each that the server has no room for."""
    pairs = [
        (length, batch)
        for length, batch in itertools.product(plan.prompt_tokens, plan.batches)
        if _fits(plan, batch, length + plan.output_tokens, skipped)
    ]
    lengths = (plan.load_prompt_tokens, plan.load_output_tokens, plan.shared_prefix)
    levels = [
        LoadCell(count, count * plan.requests, *lengths)
        for count in plan.concurrencies
        if _fits(plan, 1, plan.load_prompt_tokens + plan.load_output_tokens, skipped)
    ]
    prefill = [PrefillCell(batch, length) for length, batch in pairs]
    decode = [
        DecodeCell(batch, length, plan.output_tokens, plan.max_context - length, constrained=constrained)
        for length, batch in pairs
        for constrained in (
            [False, True] if plan.constrained and length == plan.prompt_tokens[0] else [False]
        )
    ]
    return [*prefill, *decode, *levels]


def _fits(plan: Plan, batch: int, tokens: int, skipped: list[str]) -> bool:
    if batch > plan.slots:
        skipped.append(f"batch {batch}: the server has {plan.slots} slots")
    elif tokens > plan.max_context:
        skipped.append(f"{tokens} tokens of prompt and answer: the context holds {plan.max_context}")
    else:
        return True
    return False


async def measure(
    cells: Sequence[Cell[Any, Work]], workload: Work, seconds: float, report: Report, show: Show
) -> None:
    """One round to warm up, then the repetitions; when `seconds` are over, the report has what there is.

    Raises RequestFailed where the server cannot be measured.
    """
    steps = list(itertools.product(range(report.repetitions + 1), cells))
    try:
        async with asyncio.timeout(seconds):
            for done, (number, cell) in enumerate(steps):
                show(done, len(steps))
                await cell.repeat(workload, keep=number > 0)
            report.complete = True
    except TimeoutError:
        report.skipped.append(f"what was not measured within {seconds:g} s")
    show(len(steps), len(steps))
    for cell in cells:
        if cell.samples:
            cell.report(report)
