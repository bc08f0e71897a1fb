"""The parts of a running server, and requests that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psutil

from basert.client import Client, RequestFailed
from tests.serving import Server

FOREVER = 19_000


class Stream:
    """One streamed completion, read in a task: `begun` is set with its first text, `error` when it failed."""

    def __init__(self, client: Client, max_tokens: int = FOREVER, model: str = "tiny") -> None:
        self.begun = asyncio.Event()
        self.chunks = 0
        self.error: RequestFailed | None = None
        body = {"model": model, "prompt": "hello", "max_tokens": max_tokens, "ignore_eos": True}
        self._task = asyncio.create_task(self._read(client, body))

    async def _read(self, client: Client, body: dict[str, object]) -> None:
        try:
            async for _ in client.stream("/v1/completions", body):
                self.chunks += 1
                self.begun.set()
        except RequestFailed as error:
            self.error = error
        finally:
            self.begun.set()

    async def leave(self) -> None:
        """Hang up."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def end(self) -> RequestFailed | None:
        """Wait for its end; return how it failed."""
        await self._task
        return self.error


async def open_streams(
    client: Client, count: int, max_tokens: int = FOREVER, model: str = "tiny"
) -> list[Stream]:
    streams = [Stream(client, max_tokens, model) for _ in range(count)]
    for stream in streams:
        await stream.begun.wait()
        assert stream.error is None
    return streams


def engine_of(server: Server) -> psutil.Process:
    (engine,) = [process for process in server.processes() if "engines" in process.cmdline()]
    return engine


def arbiter_of(server: Server) -> psutil.Process:
    (arbiter,) = [
        process
        for process in psutil.Process(server.pid).children()
        if "basert.http.worker" in process.cmdline()
    ]
    return arbiter


def workers_of(server: Server) -> list[psutil.Process]:
    return arbiter_of(server).children()


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether they end soon; zombies of ours count as ended."""
    _, alive = psutil.wait_procs([process for process in processes if process.is_running()], timeout=10)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def engines_of(server: Server, model: str) -> list[psutil.Process]:
    """The engine processes that run for a model, the oldest first."""
    found = [
        process
        for process in psutil.Process(server.pid).children()
        if "engines" in (line := _command_of(process)) and line[line.index("--name") + 1] == model
    ]
    return sorted(found, key=lambda process: process.create_time())


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it has just ended
        return []


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; the test's own time limit is the end of it."""
    while not await true():
        await asyncio.sleep(0.01)
