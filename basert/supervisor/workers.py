"""The HTTP workers as the supervisor knows them: what they have open, which models they are ready to serve.

Knows what they say over their control connections; nothing of engines.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field

from basert.messages import AnyMessage, Message, Prepared, Usage, UsageRequest, WorkerReport
from basert.supervisor.news import News
from basert.transport import Connection


@dataclass(eq=False)
class Worker:
    """An HTTP worker; `open_requests` is None until it can answer."""

    connection: Connection
    pid: int
    usage: Usage
    listens: bool = True  # to clients; else it asks for itself, and a drain does not wait for it
    open_requests: int | None = None
    prepared: dict[int, str] = field(default_factory=dict)  # by build: why it cannot serve that, or ""


class Workers:
    def __init__(self, news: News) -> None:
        self.all: list[Worker] = []
        self._news = news
        self._serial = 0

    @property
    def _listening(self) -> list[Worker]:
        return [worker for worker in self.all if worker.listens]

    def add(self, connection: Connection, *, listens: bool) -> Worker:
        worker = Worker(connection, connection.peer_pid, Usage(self._serial), listens)
        self.all.append(worker)
        return worker

    def remove(self, worker: Worker) -> None:
        self.all.remove(worker)

    @staticmethod
    def receive(worker: Worker, message: AnyMessage) -> None:
        match message:
            case WorkerReport():
                worker.open_requests = message.open_requests
            case Prepared():
                worker.prepared[message.build] = message.reason
            case Usage():
                worker.usage = message

    @property
    def answering(self) -> bool:
        """Whether one of them can."""
        return any(worker.open_requests is not None for worker in self._listening)

    @property
    def done(self) -> bool:
        """Whether each has said that it has no request open."""
        return all(worker.open_requests == 0 for worker in self._listening)

    def forget_open_requests(self) -> None:
        """What they say from now on counts."""
        for worker in self.all:
            worker.open_requests = None

    def tell(self, message: Message) -> None:
        for worker in self.all:
            worker.connection.send(message)

    def kill(self) -> None:
        """Those that are still connected live, so their process numbers are theirs."""
        for worker in self._listening:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def prepared(self, build: int) -> bool:
        """Whether each knows whether it can serve that build."""
        return all(build in worker.prepared for worker in self.all)

    def trouble(self, build: int) -> str:
        """Why one of them cannot serve it, or nothing."""
        return next((why for worker in self.all if (why := worker.prepared.get(build, ""))), "")

    async def asked(self, seconds: float) -> bool:
        """Have all say what they use; whether they did in time."""
        serial = self._ask()
        return await self._news.until(lambda: self._have_answered(serial), seconds)

    async def done_with(self, build: int, seconds: float) -> bool:
        """Wait until no request holds that build, as from now; False if `seconds` were not enough."""
        serial = self._ask()
        return await self._news.until(lambda: self._have_answered(serial) and not self.open(build), seconds)

    def open(self, build: int) -> int:
        """Requests that held it when they last said so."""
        return sum(worker.usage.open.get(build, 0) for worker in self.all)

    def used(self, build: int) -> float:
        """When a request to it last began or ended, by time.monotonic; 0 if nobody knows of one."""
        return max((worker.usage.used.get(build, 0.0) for worker in self.all), default=0.0)

    def _ask(self) -> int:
        self._serial += 1
        self.tell(UsageRequest(self._serial))
        return self._serial

    def _have_answered(self, serial: int) -> bool:
        return all(worker.usage.serial >= serial for worker in self.all)
