"""An HTTP worker's way to one model: to whichever of its engines can answer, waking it if it sleeps.

Knows the model's state as the supervisor told it, and when a request may be tried again; no HTTP, no text.
What goes over each engine's connection is engine_link.py's business, which engine is chosen routing.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import msgspec

from basert.errors import BasertError, EngineFailed, Unavailable
from basert.http.caller import caller
from basert.http.engine_link import RETRY_AFTER, Link, LinkLost, Replica, is_last
from basert.http.inside import lane
from basert.http.routing import Router, beginnings, weight
from basert.messages import Encode, ModelState, Stats, Submit, Tokens, Vectors

RETRY_PATIENCE = 10.0  # seconds that a request which has yielded nothing waits for a restarted engine
STATS_PATIENCE = 10.0  # seconds an engine may take to answer a StatsRequest, between two steps
RETRY_AFTER_FAILED = 60.0
SLEEPING = ("asleep", "waking")

Yielded = TypeVar("Yielded", Tokens, Vectors)
Wake = Callable[[], Awaitable[None]]


async def _nobody() -> None:
    raise Unavailable("The model sleeps; try again.", code="model_not_ready", retry_after=RETRY_AFTER)


class EngineClient:
    """Requests to one build of a model, whichever of its engines answers."""

    def __init__(self, state: ModelState, wake: Wake = _nobody, workers: int = 1) -> None:
        """wake: returns when a model that sleeps can answer, or raises BasertError. workers: HTTP workers of
        this server."""
        self._wake = wake
        self._router = Router(workers)
        self._replicas: dict[int, Replica] = {}
        self._changed = asyncio.Event()
        self._ended: BasertError | None = None
        self.update(state)

    def update(self, state: ModelState) -> None:
        """What the supervisor says now."""
        self._state = state
        for engine in state.replicas:
            replica = self._replicas.setdefault(engine.id, Replica(engine, state.name))
            replica.state = engine
        for gone in self._replicas.keys() - {engine.id for engine in state.replicas}:
            self._replicas.pop(gone).drop()
        self._news()

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

        Raises Overloaded, ContextLengthExceeded, InvalidRequest, Unavailable (no engine can answer; a request
        that has generated nothing waits for one and is tried once more), EngineFailed (lost after that).
        A model that sleeps is waited for as long as that takes.
        """
        who = caller.get()
        priority = max(request.priority, who.key.priority, lane.get())  # the least urgent one
        request = msgspec.structs.replace(request, priority=priority)
        generated, once, patience = False, lane.get() > 0, 0.0  # a batch's lines are run again by other rules
        while True:
            replica, link = await self._chosen(request, patience)
            number, answer = link.submit(request)
            try:
                while True:
                    said = await answer.take()
                    assert isinstance(said, kind)
                    if isinstance(said, Tokens):
                        generated = True
                        who.tokens += len(said.tokens)
                    yield said
                    if is_last(said):
                        return
            except LinkLost:
                if generated or once:
                    raise EngineFailed(
                        f"The engine of {self._state.name} died during this request."
                    ) from None
                once, patience = True, RETRY_PATIENCE
            finally:
                link.leave(number)
                replica.load -= weight(request)

    async def stats(self, engine: int | None = None) -> Stats:
        """The counters of an engine (by its id; else of the first) as they are now. Raises Unavailable."""
        replica = next(iter(self._replicas.values()), None) if engine is None else self._replicas.get(engine)
        link = None if replica is None or self._ended is not None else await replica.link()
        if link is None:
            raise self._unavailable()
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
        for replica in self._replicas.values():
            replica.fail_all(error)
        self._news()

    def close(self) -> None:
        for replica in self._replicas.values():
            replica.drop()

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _chosen(self, request: Submit | Encode, patience: float) -> tuple[Replica, Link]:
        """An engine that is connected, with the request added to its load.

        Waits `patience` seconds for one if all are away.
        """
        try:
            async with asyncio.timeout(patience or None):
                while True:
                    changed = self._changed  # before looking, so that no news is missed meanwhile
                    await self._awake()
                    if (found := await self._connected(request)) is not None:
                        return found
                    if not patience:
                        raise self._unavailable()
                    await changed.wait()
        except TimeoutError:
            raise self._unavailable() from None

    async def _awake(self) -> None:
        while self._ended is None and self._state.state in SLEEPING:
            await self._wake()
        if self._ended is not None:
            raise self._ended

    async def _connected(self, request: Submit | Encode) -> tuple[Replica, Link] | None:
        """The best engine that can be reached, or None."""
        ready = {number: one for number, one in self._replicas.items() if one.state.state == "ready"}
        loads = {number: one.load for number, one in ready.items()}
        begun = beginnings(request) if len(loads) > 1 else []
        for number in self._router.order(begun, loads):
            replica = self._replicas.get(number)
            if replica is not None and (link := await _reserved(replica, weight(request))) is not None:
                self._router.given(begun, number)
                return replica, link
        return None

    def _unavailable(self) -> BasertError:
        if self._ended is not None:
            return self._ended
        name, state = self._state.name, self._state.state
        if state == "failed":
            why = f"Model {name} cannot be started: {self._state.reason}"
            return Unavailable(why, code="model_failed", retry_after=RETRY_AFTER_FAILED)
        doing = {"loading": "is loading", "asleep": "sleeps"}.get(state, "is being restarted")
        return Unavailable(
            f"Model {name} {doing}; try again.", code="model_not_ready", retry_after=RETRY_AFTER
        )


async def _reserved(replica: Replica, load: int) -> Link | None:
    """Its connection, and with it the load: others that choose meanwhile see it."""
    replica.load += load
    link = None
    try:
        link = await replica.link()
    finally:
        if link is None:
            replica.load -= load
    return link
