"""An HTTP worker's way to one engine: requests out, answers in, sorted by request id over one connection.

Knows the wire messages and the engine's state as the supervisor told it; no HTTP, no text. On the path of
every token of every stream: a frame costs one decode, a token one deque entry and at most one wake-up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import msgspec

from basert.errors import (
    BasertError,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unavailable,
)
from basert.messages import Cancel, Encode, EngineState, Failed, Stats, StatsRequest, Submit, Tokens, Vectors
from basert.transport import Connection

RETRY_AFTER = 2.0  # seconds, told to clients while an engine loads or restarts

Said = Tokens | Vectors | Stats

_log = logging.getLogger(__name__)


class LinkLost(Exception):
    """The connection to the engine ended while something waited for it."""


class Answer:
    """What has come for one request and was not taken yet; the last entry may be its error."""

    __slots__ = ("_items", "_waiter", "done")

    def __init__(self) -> None:
        self._items: deque[Said | Exception] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.done = False  # the engine has said its last word

    def put(self, item: Said | Exception) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> Said:
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        item = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item


class Link:
    """One connection and the requests on it."""

    def __init__(self, connection: Connection, model: str) -> None:
        self._connection = connection
        self._model = model
        self._answers: dict[int, Answer] = {}
        self._next = 1
        self.lost = False
        self._task = asyncio.create_task(self._receive())

    def submit(self, request: Submit | Encode) -> tuple[int, Answer]:
        number, answer = self._open()
        self._connection.send(msgspec.structs.replace(request, id=number))
        return number, answer

    def ask_stats(self) -> tuple[int, Answer]:
        number, answer = self._open()
        self._connection.send(StatsRequest(number))
        return number, answer

    def leave(self, number: int) -> None:
        """Nobody waits for this any more; the engine is told if it is still at it."""
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.done:
            self._connection.send(Cancel(number))

    def fail_all(self, error: Exception) -> None:
        for answer in self._answers.values():
            answer.put(error)

    def close(self) -> None:
        self._task.cancel()
        self._connection.close()

    def _open(self) -> tuple[int, Answer]:
        number, self._next = self._next, self._next + 1
        answer = self._answers[number] = Answer()
        if self.lost:
            answer.put(LinkLost())
        return number, answer

    async def _receive(self) -> None:
        answers = self._answers
        while messages := await self._connection.receive():
            for message in messages:
                if isinstance(message, Said | Failed) and (answer := answers.get(message.id)):
                    if isinstance(message, Failed):
                        answer.done = True
                        answer.put(_error(message, self._model))
                    else:
                        answer.done = is_last(message)
                        answer.put(message)
        self.lost = True
        self._connection.close()
        for answer in answers.values():
            answer.done = True
            answer.put(LinkLost())


class Replica:
    """One of a model's engines, whichever incarnation of it runs."""

    def __init__(self, state: EngineState, model: str) -> None:
        self.state = state  # as the supervisor says now
        self.load = 0  # inputs that this worker has with it
        self._model = model
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    async def link(self) -> Link | None:
        """The connection, made if need be; None when the engine is away."""
        if self._link is not None and not self._link.lost:
            return self._link
        async with self._opening:
            if (self._link is None or self._link.lost) and self.state.state == "ready":
                self._link = await self._greeted()
        return None if self._link is None or self._link.lost else self._link

    def fail_all(self, error: BasertError) -> None:
        if self._link is not None:
            self._link.fail_all(error)

    def drop(self) -> None:
        """It is gone for good; what waits for it may look for another."""
        if self._link is not None:
            self._link.fail_all(LinkLost())
            self._link.close()

    async def _greeted(self) -> Link | None:
        """A new connection; None when the engine has just died: the supervisor will say so."""
        try:
            connection = await Connection.open(self.state.socket)
        except OSError:
            return None
        link = None
        try:
            if await connection.receive():  # else no Ready: it was dying, and its socket not yet closed
                link = Link(connection, self._model)
        finally:
            if link is None:  # perhaps because whoever asked has left
                connection.close()
        return link


def is_last(said: Said) -> bool:
    if isinstance(said, Tokens):
        return bool(said.finish)
    return said.last if isinstance(said, Vectors) else True


def _error(failed: Failed, model: str) -> BasertError:
    match failed.code:
        case "queue_full":
            return Overloaded(failed.message, retry_after=1.0)
        case "context_length_exceeded":
            return ContextLengthExceeded(failed.message)
        case "invalid":
            return InvalidRequest(failed.message, param=failed.param or None)
        case "no_adapter":
            return ModelNotFound(failed.message, param="model")
        case "draining":
            return Unavailable(failed.message, code="draining", retry_after=RETRY_AFTER)
        case _:
            _log.error("model %s failed a request: %s", model, failed.message)
            return EngineFailed(failed.message)
