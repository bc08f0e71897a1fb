"""A real `python -m engines`, with this process as its supervisor and its HTTP worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from basert.messages import (
    AnyMessage,
    EngineInfo,
    EngineReport,
    Failed,
    Message,
    Ready,
    Sampling,
    Stats,
    StatsRequest,
    Submit,
    Tokens,
)
from basert.transport import Connection, serve

GREEDY = Sampling(temperature=0)


class Worker:
    """One connection to an engine; messages are taken in the order in which they came."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._came: list[AnyMessage] = []

    async def next(self) -> AnyMessage | None:
        """The next message; None when the engine has hung up."""
        while not self._came:
            if not (came := await self.connection.receive()):
                return None
            self._came += came
        return self._came.pop(0)

    def submit(self, number: int, prompt: list[int], max_tokens: int, **more: Any) -> None:
        self.connection.send(Submit(number, prompt, max_tokens, **{"sampling": GREEDY} | more))

    async def until_end(self, number: int) -> tuple[list[int], str]:
        """The tokens of a request that come from now on, and its finish or failure code ("lost": neither)."""
        tokens: list[int] = []
        while message := await self.next():
            if isinstance(message, Failed) and message.id == number:
                return tokens, message.code
            if isinstance(message, Tokens) and message.id == number:
                tokens += message.tokens
                if message.finish:
                    return tokens, message.finish
        return tokens, "lost"

    async def ask(
        self, number: int, prompt: list[int], max_tokens: int, **more: Any
    ) -> tuple[list[int], str]:
        self.submit(number, prompt, max_tokens, **more)
        return await self.until_end(number)

    async def stats(self) -> Stats:
        self.connection.send(StatsRequest(1))
        while not isinstance(message := await self.next(), Stats):
            assert message is not None
        return message


class EngineProcess:
    """`reports` are what it has told its supervisor, to which `control` leads."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self.process = process
        self.reports: list[EngineReport] = []
        self.control: Connection | None = None
        self._socket = socket
        self._workers: list[Worker] = []

    async def connect(self) -> Worker:
        """A worker that has been greeted."""
        worker = Worker(await Connection.open(self._socket))
        assert isinstance(await worker.next(), Ready)
        self._workers.append(worker)
        return worker

    @property
    def info(self) -> EngineInfo:
        info = self.reports[-1].info
        assert info is not None
        return info

    def tell(self, message: Message) -> None:
        assert self.control is not None
        self.control.send(message)

    async def end(self) -> int:
        """Its exit status, when it has ended."""
        return await self.process.wait()

    async def cleanup(self) -> None:
        for worker in self._workers:
            worker.connection.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def engine_process(bundle: Path, run: Path, *flags: str) -> AsyncIterator[EngineProcess]:
    """Start an engine and wait until it is ready or has failed."""
    settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    engine: EngineProcess

    async def supervise(connection: Connection) -> None:
        engine.control = connection
        while messages := await connection.receive():
            engine.reports += [message for message in messages if isinstance(message, EngineReport)]
            if engine.reports[-1].stage in ("ready", "failed") and not settled.done():
                settled.set_result(None)
        if not settled.done():
            settled.set_result(None)

    control = await serve(run / "control", supervise)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engines"),
        *("--bundle", str(bundle), "--socket", str(run / "engine"), "--control", str(run / "control")),
        *flags,
    )
    engine = EngineProcess(process, run / "engine")
    try:
        await settled
        yield engine
    finally:
        await engine.cleanup()
        control.close()
        await control.wait_closed()
