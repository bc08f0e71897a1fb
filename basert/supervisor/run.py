"""Supervisor: the order of things, from the bound port to the last child's end.

    start   run folder, control socket, then engines and gunicorn side by side
    ready   every model answers or is given up, and a worker answers
    drain   readiness falls; open streams finish or end with an error event; then gunicorn, then the engines

Knows when, not how: fleet.py, http.py, control.py do the work.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from basert import config as configuration
from basert.config import ServeConfig
from basert.errors import BasertError, ConfigError, Unavailable
from basert.logs import Output
from basert.messages import Models, ModelState, Reload
from basert.supervisor.control import Control
from basert.supervisor.fleet import Fleet, Served
from basert.supervisor.folder import CONFIG, CONTROL
from basert.supervisor.http import HttpServer
from basert.supervisor.jobs import Jobs
from basert.supervisor.keys import KeysInForce
from basert.supervisor.news import News
from basert.supervisor.notify import Notifier
from basert.supervisor.workers import Workers

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
        self._served = models
        self._folder = folder
        self._output = output
        self._on_ready = on_ready
        self._notifier = Notifier(os.environ)
        self._news = News()
        self._workers = Workers(self._news)
        self._fleet = Fleet(config, folder, output, self._workers, self._news, self._announce)
        self._http = HttpServer(config, folder, listener, output)
        self._jobs = Jobs(config, folder, output)
        self._keys = KeysInForce(config, folder, lambda: self._workers.tell(Reload()))
        self._control = Control(
            self._workers,
            engine_of=self._fleet.engines.of,
            greeting=self._models,
            carry_out=self._fleet.carry_out,
            changed=self._check,
        )
        self._ready = False
        self._drain_seconds: float | None = None  # None: not draining
        self._stops = 0  # how often it was asked to end
        self._stop = asyncio.Event()
        self._deadline = 0.0  # of the drain, in the loop's time
        self._terminal = _has_terminal()

    async def run(self) -> None:
        """Return when it was asked to end and has. Raises BasertError when it cannot go on."""
        self._handle_signals()
        try:
            (self._folder / CONFIG).write_bytes(configuration.to_json(self._config))
            self._keys.read()
            await self._control.start(self._folder / CONTROL)
        except OSError as error:
            raise ConfigError(
                f"{self._folder} cannot be written ({error.strerror}); mend --run-dir."
            ) from None
        self._fleet.start(self._served)
        watchdog = asyncio.create_task(self._notifier.keep_watchdog(), name="watchdog")
        key_watch = asyncio.create_task(self._keys.watch(), name="key file")
        http = asyncio.create_task(self._http.run(), name=self._http.what)
        jobs = asyncio.create_task(self._jobs.run(), name="jobs") if self._config.files_dir else None
        try:
            await self._until_over(http)
        finally:
            await self._end(http, jobs)
            watchdog.cancel()
            key_watch.cancel()

    async def _until_over(self, http: asyncio.Task[None]) -> None:
        """Wait for a signal to end. Raises Unavailable when no model, or no HTTP server, is left."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        ends: list[asyncio.Future[Any]] = [stop, http, self._fleet.failure]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()  # a bug of ours ends the server rather than being forgotten
        if http in done:
            raise Unavailable(f"The HTTP server cannot be started: {self._http.failure}")

    async def _end(self, http: asyncio.Task[None], jobs: asyncio.Task[None] | None) -> None:
        """HTTP first, engines second; nothing is left behind."""
        self._control.end_orders()
        self._fleet.let_die()
        self._http.let_die()
        jobs_end = asyncio.create_task(self._jobs.stop(), name="end of jobs")  # nobody waits for its answers
        await self._drain(self._config.drain_timeout if self._stops == 1 else 0.0)
        await self._http.stop()
        await jobs_end
        self._workers.kill()  # whom a dead gunicorn has left
        await self._fleet.stop()
        kept = [task for task in (http, jobs) if task is not None]
        for task in kept:
            task.cancel()  # if it waits to start something again
        await asyncio.gather(*kept, return_exceptions=True)
        self._control.close()

    async def _drain(self, seconds: float) -> None:
        """Return when no worker has a request open, or the deadline has passed."""
        _log.info("ending: open requests may go on for %g s", seconds)
        self._workers.forget_open_requests()
        self._begin_drain(seconds)
        clock = asyncio.get_running_loop().time
        while not self._workers.done:
            deadline = self._deadline

            def over(deadline: float = deadline) -> bool:
                return self._workers.done or self._deadline != deadline

            if not await self._news.until(over, max(0.0, deadline - clock())):
                _log.warning("requests are still open at the end of the drain; their connections will be cut")
                return

    def _begin_drain(self, seconds: float) -> None:
        """Also to shorten one that has begun."""
        self._drain_seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds + LATE_SECONDS
        self._notifier.stopping("Finishing open requests", seconds + STOP_SECONDS)
        self._workers.tell(self._models())
        self._news.tell()

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
            self._fleet.engines.kill()
            for one in (self._http, self._jobs):
                if one.child is not None:
                    one.child.kill()
            self._workers.kill()

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
            self._keys.read()
            _log.info("log file and keys were read again")
        except (OSError, BasertError) as error:
            _log.error("nothing was reloaded: %s", error)
        if self._ready:
            self._notifier.ready(self._status())

    def _models(self) -> Models:
        draining = self._drain_seconds is not None
        return Models(self._fleet.states, draining, self._drain_seconds or 0.0)

    def _announce(self) -> None:
        """A model's state has changed."""
        self._workers.tell(self._models())
        self._check()

    def _check(self) -> None:
        """A model's or a worker's state has changed."""
        self._news.tell()
        if self._drain_seconds is not None:
            return
        if self._workers.answering:
            self._http.useful()
        builds = [build for build in self._fleet.builds if build.phase == "serving"]
        ready = [build.name for build in builds if build.state == "ready"]
        settled = all(build.settled for build in builds)
        if not self._ready and self._workers.answering and ready and settled:
            self._ready = True
            self._notifier.ready(self._status())
            # Not here: what it raises would cost the engine or worker whose report this is its connection.
            asyncio.get_running_loop().call_soon(self._on_ready, ready)
        else:
            self._notifier.status(self._status())

    def _status(self) -> str:
        """One line for `systemctl status`."""
        return ", ".join(map(_described, self._fleet.states))


def _described(model: ModelState) -> str:
    done = min((engine.fraction for engine in model.replicas), default=0.0)
    percent = f" {done:.0%}" if model.state == "loading" else ""
    return f"{model.name} {model.state}{percent}" + (f" ({model.reason})" if model.reason else "")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
