"""How many lines of batches a model works on at once, and who has to wait. Knows no batch and no request.

A quarter of the slots is left free, so that others find one. A line during which an engine died may have
killed it: it is a suspect, and runs alone, after a while if engines have died often of late. The supervisor
gives a model up that dies too often, and that must not be a batch's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from basert.http.models import Model
from basert.supervisor.restarts import QUIET_SECONDS

POLL_SECONDS = 0.25
NEWS_SECONDS = 5.0  # until the supervisor has told of a death, at most
SPARE_SECONDS = 2.0  # the supervisor has seen the engine ready a little later
LINES_OF_ENCODERS = 32  # whose texts are packed together, and take turns with those of others

_Waiting = deque[asyncio.Future[None]]


class Gate:
    """Of one model, which `model` finds as long as it is served."""

    def __init__(self, model: Callable[[], Model | None], most: int | None, deaths_allowed: int) -> None:
        """most: lines at once, if not by its slots; deaths_allowed: in quick succession (restart_limit)."""
        self._model = model
        self._most = most
        self._deaths_allowed = deaths_allowed
        self._waiting: _Waiting = deque()
        self._suspects: _Waiting = deque()
        self._running = 0
        self._alone = False  # what runs is a suspect
        self._deaths = 0  # in quick succession
        self._ready_since = -math.inf  # in the loop's time; as far as is known here
        self._restarts = 0  # of the engine, by then
        self._resting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self, *, suspect: bool = False) -> AsyncIterator[None]:
        """Around a line's time with the model, pauses between tries included. First come, first served."""
        await self._enter(self._suspects if suspect else self._waiting)
        try:
            yield
        finally:
            self._leave()

    @property
    def is_shut(self) -> bool:
        """Whether the model cannot answer now."""
        model = self._model()
        return model is None or model.state != "ready"

    @property
    def limit(self) -> int:
        """Lines at once."""
        if self._most is not None:
            return self._most
        model = self._model()
        if model is None or model.info is None:
            return 1
        if model.manifest.encoder is not None:
            return LINES_OF_ENCODERS
        return max(1, model.info.slots - math.ceil(model.info.slots / 4))

    def note_death(self) -> None:
        """An engine died under a line. Others that were there tell of the same death meanwhile."""
        if self._resting is None:
            worked = asyncio.get_running_loop().time() - self._ready_since
            self._deaths = 1 if worked > QUIET_SECONDS + SPARE_SECONDS / 2 else self._deaths + 1
            self._resting = asyncio.create_task(self._rest(), name="rest")

    def close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()

    async def _enter(self, queue: _Waiting) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # others may have waited for this one
            else:
                self._leave()  # its turn had come
            raise

    def _leave(self) -> None:
        self._running -= 1
        self._alone = False
        self._admit()

    def _admit(self) -> None:
        while queue := self._next():
            turn = queue.popleft()
            self._running += 1
            self._alone = queue is self._suspects
            turn.set_result(None)

    def _next(self) -> _Waiting | None:
        """Those of whom one may enter: the first, who has not given up."""
        for queue in (self._suspects, self._waiting):
            while queue and queue[0].cancelled():
                queue.popleft()
        if self._resting is not None or self._alone:
            return None
        if self._suspects:
            return None if self._running else self._suspects
        return self._waiting if self._running < self.limit else None

    async def _rest(self) -> None:
        """Until the model is ready again; and, before it could be given up, until its past is forgotten."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEWS_SECONDS):
                await self._until(lambda model: model.state != "ready" or model.restarts != self._restarts)
        model = await self._until(lambda model: model.state == "ready")
        self._restarts = 0 if model is None else model.restarts
        self._ready_since = asyncio.get_running_loop().time()
        if self._deaths > self._deaths_allowed // 3:
            await asyncio.sleep(QUIET_SECONDS + SPARE_SECONDS)
        self._resting = None
        self._admit()

    async def _until(self, true: Callable[[Model], bool]) -> Model | None:
        """The model once that is true of it; None: it is not served any more."""
        while (model := self._model()) is not None and not true(model):
            await asyncio.sleep(POLL_SECONDS)
        return model
