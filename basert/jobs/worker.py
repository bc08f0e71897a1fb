"""The batches of one process: claimed, run a few at a time, renewed, given back. Knows no line of them.

It looks at the records twice a second: new batches, cancelled ones, those whose holder is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from basert.errors import BasertError, Unavailable
from basert.http.models import Model, Models
from basert.jobs.claims import LEASE_SECONDS, Claim, ClaimLost, Claims, this_process
from basert.jobs.database import Database
from basert.jobs.gate import Gate
from basert.jobs.running import Job, Room

POLL_SECONDS = 0.5
RENEW_SECONDS = LEASE_SECONDS / 3
SWEEP_SECONDS = 60.0
AGAIN_SECONDS = 5.0  # after something failed
MOST_BATCHES = 16  # run at once, line by line in turn; other hosts may have the rest
MOST_HELD = 128  # with those whose model is away

_log = logging.getLogger(__name__)


class Worker:
    def __init__(self, room: Room, database: Database) -> None:
        """database: the room's, opened once more, so that no long work there holds a claim's renewal up."""
        self._room = room
        self._database = database
        self._claims = Claims(database, this_process())
        self._jobs: dict[Job, asyncio.Task[None]] = {}

    async def run(self, stopped: asyncio.Event) -> None:
        """Until it is stopped; what runs then is given up at once, and left to the next holder."""
        duties = [
            asyncio.create_task(self._again(self._look, POLL_SECONDS), name="batches"),
            asyncio.create_task(self._again(self._renew, RENEW_SECONDS), name="claims"),
            asyncio.create_task(self._again(self._sweep, SWEEP_SECONDS), name="sweep"),
        ]
        try:
            await stopped.wait()
        finally:
            await _ended([*duties, *self._jobs.values()])
            await self._release([job.claim for job in self._jobs])

    async def _again(self, duty: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Whatever fails is tried again, for as long as the process lives."""
        while True:
            try:
                await duty()
                pause = seconds
            except Unavailable as error:
                _log.warning("batches wait: %s", error.message)
                pause = AGAIN_SECONDS
            except Exception:
                _log.exception("batches wait")
                pause = AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        await self._reap()
        statuses = await self._database.run(self._claims.statuses)
        for job, task in self._jobs.items():
            if job.claim not in statuses:
                task.cancel()  # another has it
            elif statuses[job.claim] == "cancelling":
                job.cancel_batch()
        while len(self._jobs) < MOST_HELD and sum(not job.waits for job in self._jobs) < MOST_BATCHES:
            mine = {job.claim.batch for job in self._jobs}
            claim = await self._database.run(self._claims.take, mine)
            if claim is None:
                return
            job = Job(claim, self._room)
            self._jobs[job] = asyncio.create_task(job.run(), name=claim.batch)

    async def _reap(self) -> None:
        """Forget those that have ended; what failed is taken again, after a while."""
        for job, task in list(self._jobs.items()):
            if not task.done():
                continue
            del self._jobs[job]
            error = None if task.cancelled() else _cause(task.exception())
            if error is None or isinstance(error, ClaimLost):
                continue
            told = error.message if isinstance(error, BasertError) else repr(error)
            unexpected = None if isinstance(error, BasertError) else error
            _log.error("batch %s was interrupted: %s", job.claim.batch, told, exc_info=unexpected)
            raise Unavailable("one was interrupted.")

    async def _renew(self) -> None:
        await self._database.run(self._claims.renew, [job.claim for job in self._jobs])

    async def _sweep(self) -> None:
        if removed := await self._room.database.run(self._room.files.sweep):
            _log.info("%d files had expired, or were left by a crash", removed)

    async def _release(self, claims: list[Claim]) -> None:
        for claim in claims:
            try:
                await self._database.run(self._claims.release, claim)
            except Unavailable:
                return  # its lease will end


class Gates:
    """One for each model that batches have named."""

    def __init__(self, models: Models, most: int | None, deaths_allowed: int) -> None:
        self._models = models
        self._most = most
        self._deaths_allowed = deaths_allowed
        self._gates: dict[str, Gate] = {}

    def __call__(self, name: str) -> Gate:
        model = self._find(name)
        own = name if model is None else model.parent or model.name  # all its names are one gate's
        if own not in self._gates:
            self._gates[own] = Gate(lambda: self._find(own), self._most, self._deaths_allowed)
        return self._gates[own]

    def _find(self, name: str) -> Model | None:
        try:
            return self._models.get(name)
        except BasertError:
            return None

    def close(self) -> None:
        for gate in self._gates.values():
            gate.close()


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _cause(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
