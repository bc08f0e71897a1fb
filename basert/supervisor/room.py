"""Room for models: what is unused sleeps, so that others find some. Decides who; starts nothing.

A model that sleeps keeps its names. Workers are told first, and asked whether somebody has come meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from basert.config import ServeConfig
from basert.errors import Conflict
from basert.supervisor.build import Build
from basert.supervisor.planning import Plan, check_room
from basert.supervisor.workers import Workers

ANSWER_SECONDS = 2.0  # for the workers to say what they use; after that everything counts as used
MOST_IDLE_WAIT = 15.0  # seconds between two looks for idle models

_log = logging.getLogger(__name__)


class Room:
    """`builds` are all that there are; `changed` is called when one falls asleep.

    deciding: held while it is decided what is loaded: nobody else takes the room that somebody has found.
    """

    def __init__(
        self,
        config: ServeConfig,
        workers: Workers,
        builds: Callable[[], list[Build]],
        changed: Callable[[], None],
    ) -> None:
        self.deciding = asyncio.Lock()
        self._config = config
        self._workers = workers
        self._builds = builds
        self._changed = changed

    async def make(self, name: str, plan: Plan, replaced: Sequence[Build] = ()) -> None:
        """Put others to sleep if need be; call it with the lock. replaced: what it takes the place of.

        Raises Conflict when nobody can, or memory does not suffice.
        """
        most = self._config.max_loaded
        while most is not None and len(loaded := self._loaded(replaced)) >= most:
            if not await self._first_to_sleep(await self._idle(loaded)):
                names = ", ".join(dict.fromkeys(one.name for one in loaded))
                verb = "are" if len(loaded) > 1 else "is"
                raise Conflict(
                    f"{name} finds no room: --max-loaded is {most}, and {names} {verb} in use; "
                    "try again later, or unload one.",
                    param="model",
                    code="no_room",
                )
        check_room(name, plan, sum(one.promised() for one in self._builds()))

    async def watch(self, seconds: float) -> None:
        """Go on for ever: what was not used for so long is put to sleep."""
        while True:
            await asyncio.sleep(min(max(seconds / 4, 0.05), MOST_IDLE_WAIT))
            async with self.deciding:
                for build in await self._idle(self._loaded()):
                    if time.monotonic() - self._last_used(build) >= seconds:
                        await self._sleep(build)

    def _loaded(self, without: Sequence[Build] = ()) -> list[Build]:
        return [build for build in self._builds() if build.engines and build not in without]

    async def _idle(self, among: Sequence[Build]) -> list[Build]:
        """Those that no request holds, the longest unused first."""
        idle = [one for one in among if one.phase == "serving" and one.state == "ready" and not one.coming]
        if not idle or not await self._workers.asked(ANSWER_SECONDS):
            return []
        return sorted((one for one in idle if not self._workers.open(one.id)), key=self._last_used)

    def _last_used(self, build: Build) -> float:
        return max(build.ready_since, self._workers.used(build.id))

    async def _first_to_sleep(self, builds: Sequence[Build]) -> bool:
        for build in builds:
            if await self._sleep(build):
                return True
        return False

    async def _sleep(self, build: Build) -> bool:
        """End its engines until somebody wants it. False when somebody does already."""
        if build.phase != "serving":
            return False
        build.phase = "asleep"
        self._changed()
        if not await self._workers.done_with(build.id, ANSWER_SECONDS):
            build.phase = "serving" if build.phase == "asleep" else build.phase
            self._changed()
            return False
        _log.info("%s is unused and unloaded; its next request loads it", build.name)
        await build.stop()
        self._changed()
        return True
