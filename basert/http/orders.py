"""Orders from an HTTP worker to the supervisor, and what becomes of them: one future each, by number."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from basert.errors import BasertError, Conflict, InvalidRequest, ModelNotFound, Unavailable
from basert.messages import Message, Order, Outcome

_KINDS: dict[int, type[BasertError]] = {
    one.status: one for one in (InvalidRequest, ModelNotFound, Conflict, Unavailable)
}


class Orders:
    """`send` queues a message to the supervisor."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def give(self, order: Callable[[int], Order]) -> None:
        """Return when it was carried out, which it is whether or not somebody still waits. order: makes the
        message for a number. Raises what the supervisor does, or Unavailable when it is gone."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(order(number))
        try:
            await waiting
        finally:
            del self._waiting[number]

    def receive(self, outcome: Outcome) -> None:
        waiting = self._waiting.get(outcome.id)
        if waiting is None or waiting.done():
            return
        if outcome.status == 200:
            waiting.set_result(None)
        else:
            waiting.set_exception(_error(outcome))

    def fail(self, error: BasertError) -> None:
        """Nobody answers any more."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)


def _error(outcome: Outcome) -> BasertError:
    kind = _KINDS.get(outcome.status, BasertError)
    return kind(
        outcome.message,
        param=outcome.param or None,
        code=outcome.code or None,
        retry_after=outcome.retry_after or None,
    )
