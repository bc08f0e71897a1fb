"""Merging generators: nothing lost, nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from basert.resources.merge import merge


class Sources:
    def __init__(self) -> None:
        self.open = self.most = 0

    async def count(self, name: str, to: int, error: Exception | None = None) -> AsyncGenerator[str, None]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for n in range(to):
                await asyncio.sleep(0)
                yield f"{name}{n}"
            if error is not None:
                raise error
        finally:
            self.open -= 1

    async def wait(self) -> AsyncGenerator[str, None]:
        self.open += 1
        try:
            await asyncio.Event().wait()
            yield "never"
        finally:
            self.open -= 1


def merged(*sources: AsyncGenerator[str, None], **settings: Any) -> AsyncGenerator[list[str], None]:
    defaults = {"at_once": 8, "idle": 60.0, "timeout": None, "error": TimeoutError()}
    return merge(sources, **defaults | settings)


async def test_everything_comes_in_each_sources_order() -> None:
    sources = Sources()
    got = [item async for batch in merged(sources.count("a", 5), sources.count("b", 3)) for item in batch]
    assert [item for item in got if item[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]
    assert sorted(got)[5:] == ["b0", "b1", "b2"]
    assert sources.open == 0


async def test_no_more_run_at_once_than_allowed() -> None:
    sources = Sources()
    got = [batch async for batch in merged(*(sources.count(f"{n}", 3) for n in range(6)), at_once=2)]
    assert sum(map(len, got)) == 18
    assert sources.most == 2


async def test_the_first_failure_is_raised_after_what_came_before_it_and_ends_all() -> None:
    sources = Sources()
    batches = merged(sources.wait(), sources.count("a", 2, ValueError("broken")))
    assert [await anext(batches), await anext(batches)] == [["a0"], ["a1"]]
    with pytest.raises(ValueError, match="broken"):
        await anext(batches)
    assert sources.open == 0


async def test_silence_is_an_empty_batch() -> None:
    sources = Sources()
    async with aclosing(merged(sources.wait(), idle=0.01)) as batches:
        assert [await anext(batches), await anext(batches)] == [[], []]
    assert sources.open == 0


async def test_the_deadline_is_an_error() -> None:
    sources, deadline = Sources(), TimeoutError("too late")
    batches = merged(sources.wait(), timeout=0.05, error=deadline)
    with pytest.raises(TimeoutError, match="too late"):
        await anext(batches)
    assert sources.open == 0


async def test_closing_closes_every_source_before_it_returns() -> None:
    sources = Sources()
    async with aclosing(merged(sources.wait(), sources.count("a", 1), sources.wait())) as batches:
        assert await anext(batches) == ["a0"]
        assert sources.open == 2
    assert sources.open == 0


async def test_cancelling_whoever_waits_closes_every_source() -> None:
    sources = Sources()

    async def consume() -> None:
        async with aclosing(merged(sources.wait(), sources.wait())) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(consume())
    while sources.open < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sources.open == 0
