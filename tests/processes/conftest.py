"""Real servers, whole and in pieces: who is who among their processes, and requests that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from basert.client import Client, RequestFailed
from tests.serving import Server
from tests.tiny import write_testing_bundle

STEP_SECONDS = 0.02


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slow enough that a stream of FOREVER tokens is open for as long as a test needs it to be."""
    folder = tmp_path_factory.mktemp("b")
    return write_testing_bundle(folder, step_seconds=STEP_SECONDS, slots=8, max_context=20_000)


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def server(bundle: Path, run_dir: Path) -> Iterator[Server]:
    with Server([bundle], ["--run-dir", str(run_dir), "--drain-timeout", "1"]) as server:
        yield server


FOREVER = 19_000


class Stream:
    """One streamed completion, read in a task: `begun` is set with its first text, `error` when it failed."""

    def __init__(self, client: Client, max_tokens: int = FOREVER) -> None:
        self.begun = asyncio.Event()
        self.chunks = 0
        self.error: RequestFailed | None = None
        body = {"model": "tiny", "prompt": "hello", "max_tokens": max_tokens, "ignore_eos": True}
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


async def open_streams(client: Client, count: int, max_tokens: int = FOREVER) -> list[Stream]:
    streams = [Stream(client, max_tokens) for _ in range(count)]
    for stream in streams:
        await stream.begun.wait()
        assert stream.error is None
    return streams


def engine_of(server: Server) -> psutil.Process:
    (engine,) = [process for process in server.processes() if "engines" in process.cmdline()]
    return engine


def arbiter_of(server: Server) -> psutil.Process:
    (arbiter,) = [
        process for process in psutil.Process(server.pid).children() if "basert.worker" in process.cmdline()
    ]
    return arbiter


def workers_of(server: Server) -> list[psutil.Process]:
    return arbiter_of(server).children()


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether they end soon; zombies of ours count as ended."""
    _, alive = psutil.wait_procs([process for process in processes if process.is_running()], timeout=10)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
