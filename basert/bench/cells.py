"""What can be measured: prefill, decode, load. A cell measures when asked, and sums up its samples."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import Generic, TypeVar

from basert.bench.engine import Counters
from basert.bench.load import Outcome, Workload, crowd, run
from basert.bench.results import Decode, Level, Percentiles, Prefill, Report, Spread
from basert.client import RequestFailed

Sample = TypeVar("Sample")
Work = TypeVar("Work")  # what is asked: Workload of decoders, Texts of encoders

# Objects with a string, a number and an enumeration, more of them than any context has room for.
_ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "count": {"type": "integer", "minimum": 0, "maximum": 9999},
        "kind": {"enum": ["red", "green", "blue"]},
    },
    "required": ["name", "count", "kind"],
    "additionalProperties": False,
}
ENDLESS = {
    "type": "json_schema",
    "json_schema": {"name": "items", "schema": {"type": "array", "items": _ITEM, "minItems": 10_000}},
}


class Cell(ABC, Generic[Sample, Work]):
    """One line of the report to be."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    async def repeat(self, workload: Work, keep: bool) -> None:
        """Measure once more; what a warm-up found is not kept."""
        sample = await self.measure(workload)
        if keep:
            self.samples.append(sample)

    @abstractmethod
    async def measure(self, workload: Work) -> Sample:
        """Raises RequestFailed where the server cannot be measured."""

    @abstractmethod
    def report(self, report: Report) -> None:
        """Add what the samples say; there is at least one."""


class PrefillCell(Cell[float, Workload]):
    """`batch` prompts at once, each for a single token."""

    def __init__(self, batch: int, prompt_tokens: int) -> None:
        super().__init__()
        self.batch, self.prompt_tokens = batch, prompt_tokens

    async def measure(self, workload: Workload) -> float:
        bodies = workload.bodies(self.batch, self.prompt_tokens, 1)
        outcomes, seconds = await crowd(workload.client, bodies, self.batch)
        _raise_first(outcomes)
        return self.batch * self.prompt_tokens / seconds

    def report(self, report: Report) -> None:
        report.prefill.append(Prefill(self.batch, self.prompt_tokens, Spread.of(self.samples)))


class DecodeCell(Cell[tuple[float, float | None], Workload]):
    """`batch` streams at once; what counts lies between the last one's first token and the first one's end.

    A sample is (output tokens per second, Python's share of the engine's step time). The first streams run
    ahead while the last prompts are read: where that left too little to measure, all ask for more tokens, up
    to `longest`, from then on.
    """

    def __init__(
        self, batch: int, prompt_tokens: int, output_tokens: int, longest: int, *, constrained: bool = False
    ) -> None:
        """constrained: every token has to fit a schema that no answer comes to the end of."""
        super().__init__()
        self.batch, self.prompt_tokens, self.output_tokens = batch, prompt_tokens, output_tokens
        self._more = {"response_format": ENDLESS} if constrained else {}
        self._longest = longest
        self._asked = output_tokens

    async def measure(self, workload: Workload) -> tuple[float, float | None]:
        outcomes, share = await self._run(workload)
        tokens, seconds = _together(outcomes)
        while tokens < self.batch * self.output_tokens / 2 and self._asked < self._longest:
            self._asked = min(2 * self._asked, self._longest)
            outcomes, share = await self._run(workload)
            tokens, seconds = _together(outcomes)
        if not tokens:
            raise RequestFailed(
                "the streams never ran together; measure a smaller --batch or shorter prompts."
            )
        return tokens / seconds, share

    async def _run(self, workload: Workload) -> tuple[list[Outcome], float | None]:
        bodies = [body | self._more for body in workload.bodies(self.batch, self.prompt_tokens, self._asked)]
        outcomes = [Outcome(time.perf_counter()) for _ in bodies]
        async with asyncio.TaskGroup() as group:
            pairs = zip(bodies, outcomes, strict=True)
            streams = [group.create_task(run(workload.client, body, outcome)) for body, outcome in pairs]
            for outcome in outcomes:
                await outcome.began.wait()
            before = await Counters.read(workload.client, workload.model)
            await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
            after = await Counters.read(workload.client, workload.model)
        _raise_first(outcomes)
        return outcomes, after.python_share(before) if before and after else None

    def report(self, report: Report) -> None:
        rates, shares = zip(*self.samples, strict=True)
        known = [share for share in shares if share is not None]
        python = Spread.of(known) if known else None
        rate, constrained = Spread.of(rates), bool(self._more)
        report.decode.append(Decode(self.batch, self.prompt_tokens, self._asked, rate, python, constrained))


class LoadCell(Cell[tuple[list[Outcome], float], Workload]):
    """`concurrency` clients, each sending its next request as soon as the last was answered.

    A sample is (outcomes, seconds from the first sent to the last answered). The first `shared` tokens of a
    repetition's prompts are alike.
    """

    def __init__(
        self, concurrency: int, requests: int, prompt_tokens: int, output_tokens: int, shared: int = 0
    ) -> None:
        super().__init__()
        self.concurrency, self.requests, self.shared = concurrency, requests, shared
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens

    async def measure(self, workload: Workload) -> tuple[list[Outcome], float]:
        bodies = workload.bodies(self.requests, self.prompt_tokens, self.output_tokens, self.shared)
        return await crowd(workload.client, bodies, self.concurrency)

    def report(self, report: Report) -> None:
        everything = [outcome for outcomes, _ in self.samples for outcome in outcomes]
        answered = [outcome for outcome in everything if outcome.arrivals and not outcome.error]
        report.load.append(
            Level(
                concurrency=self.concurrency,
                prompt_tokens=self.prompt_tokens,
                output_tokens=self.output_tokens,
                shared_prefix=self.shared,
                requests=len(answered),
                errors=Counter(outcome.error for outcome in everything if outcome.error),
                requests_per_second=Spread.of([_answered(sample) / sample[1] for sample in self.samples]),
                output_tokens_per_second=Spread.of(
                    [
                        sum(outcome.tokens for outcome in outcomes) / seconds
                        for outcomes, seconds in self.samples
                    ]
                ),
                first_token=Percentiles.of_seconds([one.arrivals[0] - one.sent for one in answered]),
                inter_token=Percentiles.of_seconds([gap for one in answered for gap in one.gaps]),
                whole_request=Percentiles.of_seconds([one.arrivals[-1] - one.sent for one in answered]),
            )
        )


def _answered(sample: tuple[list[Outcome], float]) -> int:
    return sum(not outcome.error for outcome in sample[0])


def _together(outcomes: list[Outcome]) -> tuple[float, float]:
    """(tokens, seconds) of the time when all streams ran.

    A chunk stands for tokens/chunks tokens, since text that waits for the rest of a character comes late.
    """
    start = max(outcome.arrivals[0] for outcome in outcomes)
    end = min(outcome.arrivals[-1] for outcome in outcomes)
    shares = (
        outcome.tokens / len(outcome.arrivals) * sum(start < arrival <= end for arrival in outcome.arrivals)
        for outcome in outcomes
    )
    return sum(shares), end - start


def _raise_first(outcomes: list[Outcome]) -> None:
    """A phase with a failed request measures nothing."""
    for outcome in outcomes:
        if outcome.error is not None or not (outcome.tokens and outcome.arrivals):
            raise RequestFailed(outcome.error or "the server's streams hold no text, or no usage.")
