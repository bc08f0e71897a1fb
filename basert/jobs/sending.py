"""The lines of one batch on their way: some with the model, some answered and not yet on the disk."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from basert.http import inside
from basert.jobs.asking import answered
from basert.jobs.gate import Gate
from basert.jobs.lines import Lines
from basert.jobs.results import Result, Tokens
from basert.schema.batches import AnswerBody, InputLine, LineError, OutputLine

MOST_UNRECORDED = 32  # answers that may wait for the disk; some have megabytes

Record = Callable[[Sequence[Result]], Awaitable[None]]


class Sending:
    """`record` makes results the answers of their lines."""

    def __init__(self, lines: Lines, owner: str, app: inside.App, gate: Gate, record: Record) -> None:
        self._lines = lines
        self._owner = owner
        self._app = app
        self._gate = gate
        self._record = record
        self._answered: asyncio.Queue[Result | None] = asyncio.Queue(MOST_UNRECORDED)
        self._next = asyncio.Semaphore()  # one line waits for its turn, so that batches take turns

    async def run(self, places: Sequence[int], seconds: float, stopped: asyncio.Event) -> None:
        """Until all are answered, or the time is over, or it is `stopped`; what is answered is recorded then.

        What the recording raises comes in an ExceptionGroup.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._record_all())
            sending = asyncio.create_task(self._send_all(places))
            stop = asyncio.create_task(stopped.wait())
            try:
                await asyncio.wait({sending, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
                sending.cancel()
                await asyncio.wait({sending})
            if not sending.cancelled():
                sending.result()
            await self._answered.put(None)

    async def _send_all(self, places: Sequence[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for place in places:
                await self._next.acquire()
                group.create_task(self._send(place))

    async def _send(self, place: int) -> None:
        tries = 0

        def read() -> InputLine:
            nonlocal tries
            tries += 1
            if tries == 1:
                self._next.release()
            return self._lines.read(place)

        line, answer = await answered(self._app, read, self._owner, self._gate)
        await self._answered.put(result(self._lines.number(place), line, answer))

    async def _record_all(self) -> None:
        """As many at a time as have come while the last ones went to the disk."""
        over = False
        while not over:
            came = [await self._answered.get()]
            while not self._answered.empty():
                came.append(self._answered.get_nowait())
            results = [one for one in came if one is not None]
            over = len(results) < len(came)
            if results:
                await self._record(results)


def result(number: int, line: InputLine, answer: inside.Answer) -> Result:
    """number: of the line."""
    told = AnswerBody(answer.status, answer.headers.get("x-request-id", ""), _json(answer.body))
    ok = answer.status < 300
    return Result(number, ok, _written(line, told, None), Tokens.of(answer.body) if ok else Tokens())


def unanswered(number: int, line: InputLine, why: LineError) -> Result:
    return Result(number, False, _written(line, None, why))


def _written(line: InputLine, answer: AnswerBody | None, error: LineError | None) -> bytes:
    name = f"batch_req_{secrets.token_hex(16)}"
    return msgspec.json.encode(OutputLine(name, line.custom_id, answer, error))


def _json(body: bytes) -> Any:
    """As it may stand in one line of a file."""
    return msgspec.Raw(body) if b"\n" not in body else msgspec.json.decode(body)
