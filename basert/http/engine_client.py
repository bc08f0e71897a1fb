"""An HTTP worker's way to one engine: requests out, answers in, sorted by request id over one connection.

Knows the wire messages and the model's state as the supervisor told it; no HTTP, no text. This is on the path
of every token of every stream: a frame costs one decode, a token one deque entry and at most one wake-up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import TypeVar

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
from basert.http import access
from basert.messages import (
    Cancel,
    Encode,
    Failed,
    ModelState,
    Stats,
    StatsRequest,
    Submit,
    Tokens,
    Vectors,
)
from basert.transport import Connection

RETRY_PATIENCE = 10.0  # seconds that a request which has yielded nothing waits for a restarted engine
STATS_PATIENCE = 10.0  # seconds an engine may take to answer a StatsRequest, between two steps
RETRY_AFTER = 2.0  # seconds, told to clients while an engine loads or restarts
RETRY_AFTER_FAILED = 60.0

Said = Tokens | Vectors | Stats
Yielded = TypeVar("Yielded", Tokens, Vectors)

_log = logging.getLogger(__name__)


class LinkLost(Exception):
    """The connection to the engine ended while something waited for it."""


class _Answer:
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


class _Link:
    """One connection and the requests on it."""

    def __init__(self, connection: Connection, model: str) -> None:
        self._connection = connection
        self._model = model
        self._answers: dict[int, _Answer] = {}
        self._next = 1
        self.lost = False
        self._task = asyncio.create_task(self._receive())

    def submit(self, request: Submit | Encode) -> tuple[int, _Answer]:
        number, answer = self._open()
        self._connection.send(msgspec.structs.replace(request, id=number))
        return number, answer

    def ask_stats(self) -> tuple[int, _Answer]:
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

    def _open(self) -> tuple[int, _Answer]:
        number, self._next = self._next, self._next + 1
        answer = self._answers[number] = _Answer()
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
                        answer.done = _is_last(message)
                        answer.put(message)
        self.lost = True
        self._connection.close()
        for answer in answers.values():
            answer.done = True
            answer.put(LinkLost())


class EngineClient:
    """Requests to one model's engine, whichever incarnation of it runs."""

    def __init__(self, state: ModelState) -> None:
        self._state = state
        self._changed = asyncio.Event()
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._ended: BasertError | None = None

    def update(self, state: ModelState) -> None:
        """What the supervisor says now."""
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def generate(self, request: Submit) -> AsyncGenerator[Tokens, None]:
        """Yield what each step yields; the last has `finish` set. See _answers."""
        return self._answers(request, Tokens)

    def encode(self, request: Encode) -> AsyncGenerator[Vectors, None]:
        """Yield what each batch yields; with the last (`last`) every input has its answer. See _answers.

        After a second try an input may have been answered twice, and alike.
        """
        return self._answers(request, Vectors)

    async def _answers(self, request: Submit | Encode, kind: type[Yielded]) -> AsyncGenerator[Yielded, None]:
        """All that the engine says to a request, whose id is given here. Closed early, it sends Cancel.

        Raises Overloaded, ContextLengthExceeded, InvalidRequest, Unavailable (the engine is away; a request
        that has generated nothing waits for it and is tried once more), EngineFailed (lost after that).
        """
        tally = access.tally.get()
        generated = retried = False
        while True:
            link = await self._connected(RETRY_PATIENCE if retried else 0.0)
            number, answer = link.submit(request)
            try:
                while True:
                    said = await answer.take()
                    assert isinstance(said, kind)
                    if isinstance(said, Tokens):
                        generated = True
                        tally.tokens += len(said.tokens)
                    yield said
                    if _is_last(said):
                        return
            except LinkLost:
                if generated or retried:
                    raise EngineFailed(
                        f"The engine of {self._state.name} died during this request."
                    ) from None
                retried = True
            finally:
                link.leave(number)

    async def stats(self) -> Stats:
        """The engine's counters now. Raises Unavailable."""
        link = await self._connected(0.0)
        number, answer = link.ask_stats()
        try:
            async with asyncio.timeout(STATS_PATIENCE):
                stats = await answer.take()
        except (LinkLost, TimeoutError):
            raise self._unavailable() from None
        finally:
            link.leave(number)
        assert isinstance(stats, Stats)
        return stats

    def end(self, error: BasertError) -> None:
        """End every open request, and any that still comes, with `error`."""
        self._ended = error
        self._changed.set()
        if self._link is not None:
            self._link.fail_all(error)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    async def _connected(self, patience: float) -> _Link:
        """The connection, made if need be; waits `patience` seconds for an engine that is away."""
        try:
            async with asyncio.timeout(patience or None):
                while True:
                    changed = self._changed  # before looking, so that no news is missed meanwhile
                    if (link := await self._open()) is not None:
                        return link
                    if not patience:
                        raise self._unavailable()
                    await changed.wait()
        except TimeoutError:
            raise self._unavailable() from None

    async def _open(self) -> _Link | None:
        """The connection of the engine that is ready now; None when there is none."""
        if self._ended is not None:
            raise self._ended
        if self._link is not None and not self._link.lost:
            return self._link
        async with self._opening:
            if (self._link is None or self._link.lost) and self._state.state == "ready":
                self._link = await self._greeted()
        return None if self._link is None or self._link.lost else self._link

    async def _greeted(self) -> _Link | None:
        """A new connection; None when the engine has just died: the supervisor will say so."""
        try:
            connection = await Connection.open(self._state.socket)
        except OSError:
            return None
        link = None
        try:
            if await connection.receive():  # else no Ready: it was dying, and its socket not yet closed
                link = _Link(connection, self._state.name)
        finally:
            if link is None:  # perhaps because whoever asked has left
                connection.close()
        return link

    def _unavailable(self) -> Unavailable:
        name, state = self._state.name, self._state.state
        if state == "failed":
            why = f"Model {name} cannot be started: {self._state.reason}"
            return Unavailable(why, code="model_failed", retry_after=RETRY_AFTER_FAILED)
        doing = "is loading" if state == "loading" else "is being restarted"
        return Unavailable(
            f"Model {name} {doing}; try again.", code="model_not_ready", retry_after=RETRY_AFTER
        )


def _is_last(said: Said) -> bool:
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
