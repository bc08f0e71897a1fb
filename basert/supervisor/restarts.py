"""Keeping a child process alive: started again when it dies, later and later, until that is given up.

Knows no particular process: engine.py and http.py say what is started and what its death means.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from basert.config import ServeConfig
from basert.supervisor.child import Child, how_it_ended

QUIET_SECONDS = 60.0  # after so long without a death, the past is forgotten

_log = logging.getLogger(__name__)


@dataclass
class Restarts:
    """Doubles the wait with each death in quick succession; `count` is all that led to a restart."""

    limit: int  # deaths in quick succession
    first: float  # seconds
    most: float  # seconds
    count: int = 0
    _quick: int = field(default=0, init=False)

    def after_death(self, worked: float) -> float | None:
        """Seconds to wait before the next start, or None to give up. `worked`: seconds it had been of use."""
        if worked >= QUIET_SECONDS:
            self._quick = 0
        self._quick += 1
        if self._quick >= self.limit:
            return None
        self.count += 1
        return min(self.first * 2.0 ** (self._quick - 1), self.most)


class Kept(ABC):
    """A child that is started again. `run` it as a task; it returns when that is given up, or not wanted."""

    def __init__(self, config: ServeConfig) -> None:
        self.restarts = Restarts(config.restart_limit, config.restart_backoff, config.restart_backoff_max)
        self.child: Child | None = None
        self.failure = ""  # why it was given up
        self._useful_since: float | None = None
        self._ending = False

    @property
    @abstractmethod
    def what(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def _start(self) -> Child:
        """Start the process. Raises OSError."""

    @abstractmethod
    def _died(self, reason: str, wait: float | None) -> None:
        """It has ended because of `reason` and starts again in `wait` seconds, or is given up (None)."""

    async def _explain(self, child: Child, status: int) -> str:
        """Why it ended: the last thing it printed may tell, unless it had no time to print."""
        words = "" if status == -signal.SIGKILL else await child.last_words()
        return f"{words} ({how_it_ended(status)})" if words else how_it_ended(status)

    def useful(self) -> None:
        """It has begun to do its work."""
        self._useful_since = self._useful_since or asyncio.get_running_loop().time()

    def let_die(self) -> None:
        """From now on a death is an end."""
        self._ending = True

    def is_ending(self) -> bool:
        return self._ending

    async def run(self) -> None:
        while not self.is_ending():
            self._useful_since = None
            reason = await self._live()
            if self.is_ending():
                return
            wait = self.restarts.after_death(self._worked())
            if wait is None:
                self.failure = reason
                deaths = f" after {self.restarts.limit} deaths" if self.restarts.limit > 1 else ""
                _log.error("%s is given up%s: %s", self.what, deaths, reason)
            else:
                _log.warning("%s died (%s); it starts again in %.1f s", self.what, reason, wait)
            self._died(reason, wait)
            if wait is None:
                return
            await asyncio.sleep(wait)

    async def _live(self) -> str:
        """One incarnation, from start to end; returns why it ended."""
        try:
            self.child = self._start()
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        status = await self.child.wait()
        return await self._explain(self.child, status)

    def _worked(self) -> float:
        if self._useful_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._useful_since
