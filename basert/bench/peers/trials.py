"""The workloads of decoders: what is asked of every server alike, and what is noted. Knows no server.

A trial refuses to give numbers for something else than it asked for: fewer tokens, a shortened prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from basert.bench.load import Outcome, Workload, crowd, run
from basert.bench.peers.processes import MemoryPeak
from basert.bench.peers.texts import Texts
from basert.bench.peers.trial import Subject, Trial
from basert.bench.results import percentile
from basert.client import RequestFailed

TOGETHER_SECONDS = 0.001


@dataclass(frozen=True)
class Stream(Subject):
    workload: Workload
    texts: Texts


@dataclass(frozen=True)
class Load(Trial[Stream]):
    """A closed loop: each of `streams` clients sends its next request when its last one was answered."""

    streams: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    shared: int = 0

    async def measure(self, subject: Stream) -> dict[str, float]:
        lengths = (self.prompt_tokens, self.output_tokens, self.shared)
        bodies = subject.workload.bodies(self.requests, *lengths)
        with MemoryPeak(subject.pid) as peak:
            outcomes, seconds = await crowd(subject.workload.client, bodies, self.streams)
        check(outcomes, self.prompt_tokens, self.output_tokens)
        gaps = sorted(gap for one in outcomes for gap, _ in gaps_of(one))
        return {
            "tokens_per_second": sum(one.tokens for one in outcomes) / seconds,
            "first_token_ms": 1e3 * statistics.median(one.arrivals[0] - one.sent for one in outcomes),
            **_percentiles(gaps, gap_ms=0.5, gap_p99_ms=0.99),
            "memory_mib": peak.mib,
        }


@dataclass(frozen=True)
class SingleStream(Trial[Stream]):
    """Prompts that are about something, one after the other."""

    kind: Literal["repeating", "chat"]
    output_tokens: int
    to_the_end: bool  # or until the model ends by itself

    async def measure(self, subject: Stream) -> dict[str, float]:
        prompts: list[list[int]] = getattr(subject.texts, self.kind)
        bodies = [subject.workload.body(prompt, self.output_tokens) for prompt in prompts]
        for body in bodies:
            body["ignore_eos"] = self.to_the_end
        outcomes, seconds = await crowd(subject.workload.client, bodies, 1)
        check(outcomes, None, self.output_tokens if self.to_the_end else None)
        return {
            "tokens_per_second": sum(one.tokens for one in outcomes) / seconds,
            "first_token_ms": 1e3 * statistics.median(one.arrivals[0] - one.sent for one in outcomes),
        }


@dataclass(frozen=True)
class Arrivals(Trial[Stream]):
    """Running streams, first by themselves, then while long prompts come in one after the other."""

    streams: int
    prompt_tokens: int
    longest: int  # tokens: the streams must outlast the arrivals
    arrivals: int
    arriving_tokens: int
    quiet_seconds: float

    async def measure(self, subject: Stream) -> dict[str, float]:
        client = subject.workload.client
        outcomes = [Outcome(time.perf_counter()) for _ in range(self.streams)]
        bodies = subject.workload.bodies(self.streams, self.prompt_tokens, self.longest)
        async with _hung_up([run(client, *pair) for pair in zip(bodies, outcomes, strict=True)]):
            for outcome in outcomes:
                await outcome.began.wait()
            quiet = time.perf_counter()
            await asyncio.sleep(self.quiet_seconds)
            busy = time.perf_counter()
            arriving = subject.workload.bodies(self.arrivals, self.arriving_tokens, 4)
            check((await crowd(client, arriving, 1))[0], self.arriving_tokens, 4)
            end = time.perf_counter()
        if any(one.error or one.tokens for one in outcomes):
            raise RequestFailed("the running streams ended before the last prompt had arrived.")
        without, during = _gaps_within(outcomes, quiet, busy), _gaps_within(outcomes, busy, end)
        values = {
            **_percentiles(without, quiet_gap_ms=0.5),
            **_percentiles(during, busy_gap_p99_ms=0.99),
        }
        if len(values) < 2:
            raise RequestFailed("its streams come in one piece: nothing lies between their tokens.")
        return {"gap_p99_ratio": values["busy_gap_p99_ms"] / values["quiet_gap_ms"], **values}


def check(outcomes: Sequence[Outcome], prompt_tokens: int | None, output_tokens: int | None) -> None:
    """Raises RequestFailed unless all were answered, with what they asked for (None: whatever came)."""
    for one in outcomes:
        if one.error is not None or not (one.tokens and one.arrivals):
            raise RequestFailed(one.error or "a stream held no text, or no usage.")
        if output_tokens not in (None, one.tokens):
            raise RequestFailed(f"it answered {one.tokens} tokens where {output_tokens} were asked for.")
        if prompt_tokens not in (None, one.prompt_tokens):
            raise RequestFailed(f"it read {one.prompt_tokens} tokens of a prompt of {prompt_tokens}.")


@contextlib.asynccontextmanager
async def _hung_up(streams: Iterable[Any]) -> Any:
    """The streams run while the block does; then their connections are closed."""
    tasks = [asyncio.create_task(stream) for stream in streams]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def gaps_of(outcome: Outcome) -> Iterator[tuple[float, float]]:
    """(seconds since the chunk before, when it came). Chunks that come together are one: a server that
    drafts sends several at once, and nobody sees them one by one."""
    last = outcome.arrivals[0] if outcome.arrivals else 0.0
    for arrival in outcome.arrivals[1:]:
        if arrival - last > TOGETHER_SECONDS:
            yield arrival - last, arrival
            last = arrival


def _gaps_within(outcomes: Iterable[Outcome], start: float, end: float) -> list[float]:
    """Gaps whose later chunk came within [start, end], in order."""
    return sorted(gap for one in outcomes for gap, came in gaps_of(one) if start <= came <= end)


def _percentiles(ordered: Sequence[float], **shares: float) -> dict[str, float]:
    """Milliseconds by name; nothing where no stream had two chunks apart."""
    found = {name: percentile(ordered, share) for name, share in shares.items()}
    return {name: value for name, value in found.items() if value is not None}


def _load(streams: int, requests: int, prompt: int, output: int, headline: str = "tokens_per_second") -> Load:
    about = f"{streams} streams, prompts of {prompt:,}, answers of {output}"
    return Load(f"{streams}x{prompt}", about, headline, streams, requests, prompt, output)


TRIALS: dict[str, Trial[Stream]] = {
    trial.name: trial
    for trial in (
        _load(1, 4, 128, 128),
        _load(8, 24, 128, 128),
        _load(32, 64, 128, 128),
        _load(8, 16, 1024, 128),
        _load(32, 32, 1024, 128),
        replace(
            _load(8, 32, 1024, 32),
            name="prefix",
            about="8 streams, prompts of 1,024 of which all share the first 1,000, answers of 32",
            shared=1000,
        ),
        replace(_load(1, 6, 128, 4, "first_token_ms"), name="first-128", about="one stream, prompts of 128"),
        replace(
            _load(1, 6, 1024, 4, "first_token_ms"), name="first-1024", about="one stream, prompts of 1,024"
        ),
        Arrivals(
            name="arrivals",
            about="8 running streams while prompts of 1,024 come in one after the other",
            headline="gap_p99_ratio",
            streams=8,
            prompt_tokens=128,
            longest=900,
            arrivals=6,
            arriving_tokens=1024,
            quiet_seconds=2.0,
        ),
        SingleStream(
            "repeats",
            "one stream, text that repeats itself, answers of 128",
            "tokens_per_second",
            "repeating",
            128,
            to_the_end=True,
        ),
        SingleStream(
            "chat",
            "one stream, chat questions, answers as long as the model makes them (256 at most)",
            "tokens_per_second",
            "chat",
            256,
            to_the_end=False,
        ),
    )
}
