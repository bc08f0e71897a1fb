"""Supervisor: the order of things, from the bound port to the last child's end.

    start   run folder, control socket, then engines and gunicorn side by side
    ready   every model answers or is given up, and a worker answers
    drain   readiness falls; open streams finish or end with an error event; then gunicorn, then the engines

Knows when, not how: engine.py, http.py, control.py do the work.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from basert import config as configuration
from basert.config import ServeConfig
from basert.errors import BasertError, ConfigError, Unavailable
from basert.logs import Output
from basert.messages import Models, Reload
from basert.supervisor.control import Control
from basert.supervisor.engine import Engine, Served
from basert.supervisor.folder import CONFIG, CONTROL
from basert.supervisor.http import HttpServer
from basert.supervisor.jobs import Jobs
from basert.supervisor.notify import Notifier
from basert.supervisor.restarts import Kept

LATE_SECONDS = 2.0  # that workers may need beyond the drain's deadline to say that it has passed
STOP_SECONDS = 20.0  # for gunicorn and the engines, after the drain

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs one server. `on_ready` is called once, when it can answer."""

    def __init__(
        self,
        config: ServeConfig,
        models: Sequence[Served],
        folder: Path,
        listener: socket.socket,
        output: Output,
        on_ready: Callable[[list[str]], None],
    ) -> None:
        self._config = config
        self._folder = folder
        self._output = output
        self._on_ready = on_ready
        self._notifier = Notifier(os.environ)
        self._engines = [
            Engine(number, served, config, folder, output, self._announce)
            for number, served in enumerate(models)
        ]
        self._http = HttpServer(config, folder, listener, output)
        self._jobs = Jobs(config, folder, output)
        self._control = Control(self._engines, self._models, self._check)
        self._ready = False
        self._drain_seconds: float | None = None  # None: not draining
        self._stops = 0  # how often it was asked to end
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._deadline = 0.0  # of the drain, in the loop's time
        self._terminal = _has_terminal()

    async def run(self) -> None:
        """Return when it was asked to end and has. Raises BasertError when it cannot go on."""
        self._handle_signals()
        try:
            (self._folder / CONFIG).write_bytes(configuration.to_json(self._config))
            await self._control.start(self._folder / CONTROL)
        except OSError as error:
            raise ConfigError(
                f"{self._folder} cannot be written ({error.strerror}); mend --run-dir."
            ) from None
        watchdog = asyncio.create_task(self._notifier.keep_watchdog(), name="watchdog")
        kept = [asyncio.create_task(one.run(), name=one.what) for one in (*self._engines, self._http)]
        jobs = [asyncio.create_task(self._jobs.run(), name="jobs")] if self._config.files_dir else []
        try:
            await self._until_over(kept)
        finally:
            await self._end([*kept, *jobs])
            watchdog.cancel()

    async def _until_over(self, kept: list[asyncio.Task[None]]) -> None:
        """Wait for a signal to end. Raises Unavailable when no model, or no HTTP server, is left."""
        *engines, http = kept
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        pending: set[asyncio.Task[object]] = {*kept, stop}
        while not stop.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a bug of ours ends the server rather than being forgotten
            if http.done():
                raise Unavailable(f"The HTTP server cannot be started: {self._http.failure}")
            if all(task.done() for task in engines):
                raise Unavailable(_all_failed(self._engines))

    async def _end(self, kept: list[asyncio.Task[None]]) -> None:
        """HTTP first, engines second; nothing is left behind."""
        everything: list[Kept] = [*self._engines, self._http, self._jobs]
        for one in everything:
            one.let_die()
        jobs = asyncio.create_task(self._jobs.stop(), name="end of jobs")  # nobody waits for its answers
        await self._drain(self._config.drain_timeout if self._stops == 1 else 0.0)
        await self._http.stop()
        await jobs
        self._control.kill_workers()  # whom a dead gunicorn has left
        await asyncio.gather(*(engine.stop() for engine in self._engines))
        for task in kept:
            task.cancel()  # those that wait to start something again
        await asyncio.gather(*kept, return_exceptions=True)
        self._control.close()

    async def _drain(self, seconds: float) -> None:
        """Return when no worker has a request open, or the deadline has passed."""
        _log.info("ending: open requests may go on for %g s", seconds)
        for worker in self._control.workers:
            worker.open_requests = None  # what it says from now on counts
        self._begin_drain(seconds)
        while any(worker.open_requests != 0 for worker in self._control.workers):
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._changed.wait()
            except TimeoutError:
                _log.warning("requests are still open at the end of the drain; their connections will be cut")
                return

    def _begin_drain(self, seconds: float) -> None:
        """Also to shorten one that has begun."""
        self._drain_seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds + LATE_SECONDS
        self._notifier.stopping("Finishing open requests", seconds + STOP_SECONDS)
        self._control.tell_workers(self._models())
        self._changed.set()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_end)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_end(self) -> None:
        """The first time drain, the second time drain no longer, after that kill."""
        self._stops += 1
        self._stop.set()
        if self._stops == 2 and self._drain_seconds is not None:
            self._begin_drain(0.0)
        elif self._stops > 2:
            for one in (*self._engines, self._http, self._jobs):
                if one.child is not None:
                    one.child.kill()
            self._control.kill_workers()

    def _asked_to_reload(self) -> None:
        """SIGHUP: keys and log file; from a terminal that has gone, it means the end."""
        if self._terminal and not _has_terminal():
            self._asked_to_end()
        if self._stops:
            return
        if self._ready:
            self._notifier.reloading()
        try:
            self._output.reopen()
            self._config.read_keys()
            self._control.tell_workers(Reload())
            _log.info("log file and keys were read again")
        except (OSError, BasertError) as error:
            _log.error("nothing was reloaded: %s", error)
        if self._ready:
            self._notifier.ready(self._status())

    def _models(self) -> Models:
        draining = self._drain_seconds is not None
        return Models([engine.state for engine in self._engines], draining, self._drain_seconds or 0.0)

    def _announce(self) -> None:
        """A model's state has changed."""
        self._control.tell_workers(self._models())
        self._check()

    def _check(self) -> None:
        """A model's or a worker's state has changed."""
        self._changed.set()
        if self._drain_seconds is not None:
            return
        answering = any(worker.open_requests is not None for worker in self._control.workers)
        if answering:
            self._http.useful()
        ready = [engine.state.name for engine in self._engines if engine.state.state == "ready"]
        if not self._ready and answering and ready and all(engine.settled for engine in self._engines):
            self._ready = True
            self._notifier.ready(self._status())
            # Not here: what it raises would cost the engine or worker whose report this is its connection.
            asyncio.get_running_loop().call_soon(self._on_ready, ready)
        else:
            self._notifier.status(self._status())

    def _status(self) -> str:
        """One line for `systemctl status`."""
        return ", ".join(
            f"{state.name} {state.state}"
            + (f" {state.fraction:.0%}" if state.state == "loading" else "")
            + (f" ({state.reason})" if state.reason else "")
            for state in (engine.state for engine in self._engines)
        )


def _all_failed(engines: Sequence[Engine]) -> str:
    reasons = "; ".join(f"{engine.state.name}: {engine.failure}" for engine in engines)
    return f"No model can be served ({reasons})."


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
