"""control.sock: engines report here, HTTP workers are told here what the models' state is.

Knows connections and who is at their other end; what a report means is the engine's business (engine.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from basert.messages import (
    AdapterDone,
    AnyMessage,
    EngineReport,
    LoadAdapter,
    Message,
    Models,
    UnloadAdapter,
    Watch,
    WorkerReport,
)
from basert.supervisor.engine import Engine
from basert.transport import Connection, serve

_log = logging.getLogger(__name__)


@dataclass
class Worker:
    """An HTTP worker; `open_requests` is None until it can answer."""

    connection: Connection
    pid: int
    open_requests: int | None = None


class Control:
    """`greeting` is what a new worker is sent; `changed` is called when a worker comes, reports or goes."""

    def __init__(
        self, engines: list[Engine], greeting: Callable[[], Models], changed: Callable[[], None]
    ) -> None:
        self.workers: list[Worker] = []
        self._engines = {engine.state.name: engine for engine in engines}
        self._greeting = greeting
        self._changed = changed
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        self._server = await serve(path, self._serve)

    def tell_workers(self, message: Message) -> None:
        for worker in self.workers:
            worker.connection.send(message)

    def kill_workers(self) -> None:
        """Those that are still connected live, so their process numbers are theirs."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, connection: Connection) -> None:
        messages = await connection.receive()
        match messages[:1]:
            case [EngineReport() as report]:
                await self._serve_engine(connection, messages, report.model)
            case [Watch()]:
                await self._serve_worker(connection, messages)
            case _:
                _log.warning("process %d said nothing sensible on the control socket", connection.peer_pid)

    async def _serve_engine(self, connection: Connection, messages: list[AnyMessage], name: str) -> None:
        engine = self._engines.get(name)
        if engine is None or not engine.attach(connection):
            return
        while messages:
            for message in messages:
                engine.receive(message)
            messages = await connection.receive()

    async def _serve_worker(self, connection: Connection, messages: list[AnyMessage]) -> None:
        worker = Worker(connection, connection.peer_pid)
        self.workers.append(worker)
        connection.send(self._greeting())
        try:
            while messages:
                for message in messages:
                    if isinstance(message, WorkerReport):
                        worker.open_requests = message.open_requests
                        self._changed()
                    elif isinstance(message, LoadAdapter | UnloadAdapter):
                        self._adapt(message, connection)
                messages = await connection.receive()
        finally:
            self.workers.remove(worker)
            self._changed()

    def _adapt(self, message: LoadAdapter | UnloadAdapter, worker: Connection) -> None:
        if (engine := self._engines.get(message.model)) is not None:
            engine.adapt(message, worker.send)
        else:
            worker.send(AdapterDone(message.id, f"no model {message.model} is served here."))
