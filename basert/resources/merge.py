"""Several asynchronous generators as one, with silence and a deadline made visible. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Ended:
    """A source has no more."""


class _Inbox(Generic[Item]):
    """What the sources have yielded and nobody took yet; an exception is the end of everything."""

    def __init__(self) -> None:
        self.items: deque[Item | _Ended | Exception] = deque()
        self._filled = asyncio.Event()

    def put(self, item: Item | _Ended | Exception) -> None:
        self.items.append(item)
        self._filled.set()

    def take(self) -> tuple[list[Item], int, Exception | None]:
        """The items there are, how many sources have ended, and what has failed."""
        batch: list[Item] = []
        ended = 0
        while self.items:
            item = self.items.popleft()
            if isinstance(item, Exception):
                return batch, ended, item
            if isinstance(item, _Ended):
                ended += 1
            else:
                batch.append(item)
        return batch, ended, None

    async def wait(self, seconds: float) -> None:
        """Until something is there, or `seconds` have passed."""
        self._filled.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self._filled.set)
        try:
            await self._filled.wait()
        finally:
            timer.cancel()


async def merge(
    sources: Sequence[AsyncGenerator[Item, None]],
    *,
    at_once: int,
    idle: float,
    timeout: float | None,
    error: Exception,
) -> AsyncGenerator[list[Item], None]:
    """Yield what has come from any source, all at a time; an empty list after `idle` seconds of silence.

    At most `at_once` sources run together. The first exception of a source ends all and is raised; so is
    `error` after `timeout` seconds. However this ends, every source is closed before it returns.
    """
    inbox = _Inbox[Item]()
    free = asyncio.Semaphore(at_once)
    tasks = [asyncio.create_task(_pump(source, inbox, free)) for source in sources]
    timer = asyncio.get_running_loop().call_later(timeout, inbox.put, error) if timeout else None
    try:
        running = len(tasks)
        while running:
            if not inbox.items:
                await inbox.wait(idle)
            silent = not inbox.items
            batch, ended, failure = inbox.take()
            running -= ended
            if batch or silent:
                yield batch
            if failure is not None:
                raise failure
    finally:
        if timer is not None:
            timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: AsyncGenerator[Item, None], inbox: _Inbox[Item], free: asyncio.Semaphore) -> None:
    try:
        async with free, aclosing(source):
            async for item in source:
                inbox.put(item)
    except Exception as error:
        inbox.put(error)
    else:
        inbox.put(_Ended())
