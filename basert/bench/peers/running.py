"""One server of a comparison, up and warm: started, asked for a first answer, warmed up, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from basert.bench.peers.peer import Peer, PeerFailed, Setup
from basert.bench.peers.processes import memory_mib
from basert.bench.peers.trial import Discipline, Subject
from basert.client import Client, RequestFailed
from basert.errors import Unavailable
from basert.server_process import ServerProcess, free_port, own_environment

WARM_SECONDS = 120.0  # for the first answer and the warm-up; then it counts as failed


@dataclass(frozen=True)
class Entrant:
    """A peer that is installed, and what it shall serve."""

    peer: Peer
    setup: Setup

    @property
    def name(self) -> str:
        return self.peer.name


@dataclass(frozen=True)
class Running:
    entrant: Entrant
    subject: Subject
    process: ServerProcess
    started: dict[str, float]  # by the names of METRICS

    @property
    def name(self) -> str:
        return self.entrant.name


@asynccontextmanager
async def running(entrant: Entrant, discipline: Discipline[Any]) -> AsyncGenerator[Running]:
    """Raises PeerFailed where it does not start, or does not answer."""
    began = time.perf_counter()
    process = _spawn(entrant)
    try:
        await _ready(entrant, process)
        ready = time.perf_counter() - began
        async with Client(process.url, keep_alive=discipline.keep_alive) as client:
            subject = discipline.subject(client, entrant.setup.model.name, process.pid)
            async with _in_time(process):
                answered = await discipline.first_answer(subject) - began
                memory = memory_mib(process.pid)
                await discipline.warm_up(subject, entrant.setup.streams)
            started = {"ready_s": ready, "answered_s": answered, "memory_mib": memory}
            yield Running(entrant, subject, process, started)
    finally:
        await asyncio.to_thread(_end, process)


def _spawn(entrant: Entrant) -> ServerProcess:
    peer, port = entrant.peer, free_port()
    command = peer.command(entrant.setup, port)
    env = {**own_environment(), **peer.environment(entrant.setup)}
    try:
        return ServerProcess(command, port=port, env=env, ready_path=peer.ready_path)
    except Unavailable as error:
        raise PeerFailed(error.message) from None


async def _ready(entrant: Entrant, process: ServerProcess) -> None:
    try:
        await asyncio.to_thread(process.wait_ready, entrant.peer.start_seconds)
    except Unavailable as error:
        raise PeerFailed(error.message) from None


@asynccontextmanager
async def _in_time(process: ServerProcess) -> AsyncGenerator[None]:
    """A server that is ready and then does not answer has failed, too."""
    try:
        async with asyncio.timeout(WARM_SECONDS):
            yield
    except TimeoutError:
        raise PeerFailed(f"it answered nothing within {WARM_SECONDS:g} s of being ready.") from None
    except RequestFailed as error:
        last = process.last_words()[-300:]
        raise PeerFailed(f"its first answers failed: {error.message} It said last: {last}") from None


def _end(process: ServerProcess) -> None:
    """With all that it may have left behind: the group outlives its first process."""
    process.stop()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
