"""One streamed completion and its clock, and a crowd of them. Knows time stamps, not what they mean."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from basert.bench.prompts import Prompts
from basert.client import Client, RequestFailed, Transcript

PATH = "/v1/completions"
Run = Callable[[Client, dict[str, Any], "Outcome"], Awaitable[None]]


@dataclass
class Outcome:
    """One request: when it was sent, when its chunks came (perf_counter seconds), how many tokens it got.

    `tokens` and `prompt_tokens` are what the server counted.
    """

    sent: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    vectors: list[str] = field(default_factory=list)  # of embeddings, base64 of float32
    transcript: Transcript | None = None  # of a recording
    error: str | None = None
    began: asyncio.Event = field(default_factory=asyncio.Event)  # the first chunk, or the end without one

    @property
    def gaps(self) -> Iterator[float]:
        """Seconds between neighbouring chunks."""
        return (later - earlier for earlier, later in itertools.pairwise(self.arrivals))


@dataclass(frozen=True)
class Workload:
    """Greedy requests for one model that get exactly as many tokens as they ask for."""

    client: Client
    model: str
    prompts: Prompts

    def bodies(
        self, count: int, prompt_tokens: int, output_tokens: int, shared: int = 0
    ) -> list[dict[str, Any]]:
        """`count` requests with prompts of their own, whose first `shared` tokens are alike."""
        prompts = self.prompts.draw_many(count, prompt_tokens, shared)
        return [self.body(prompt, output_tokens) for prompt in prompts]

    def body(self, prompt: list[int], output_tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }


async def run(client: Client, body: dict[str, Any], outcome: Outcome) -> None:
    """Send one request and note what happens to it. Never raises for what the server does."""
    try:
        async for chunk in client.stream(PATH, body):
            if chunk.usage is not None:  # some servers send it along with the last text
                outcome.tokens = chunk.usage.completion_tokens
                outcome.prompt_tokens = chunk.usage.prompt_tokens
            if chunk.text:
                outcome.arrivals.append(time.perf_counter())
                outcome.began.set()
    except RequestFailed as error:
        outcome.error = error.message
    finally:
        outcome.began.set()


async def crowd(
    client: Client, bodies: list[dict[str, Any]], concurrency: int, run: Run = run
) -> tuple[list[Outcome], float]:
    """All requests, `concurrency` at a time: outcomes in order; seconds from first sent to last answered."""
    outcomes: list[Outcome] = []
    waiting = iter(bodies)

    async def one_client() -> None:
        for body in waiting:
            outcome = Outcome(time.perf_counter())
            outcomes.append(outcome)
            await run(client, body, outcome)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_client())
    return outcomes, time.perf_counter() - start
