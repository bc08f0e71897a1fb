"""gunicorn as a child: started on the port that is already bound, restarted, ended. Knows no HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

from basert.config import ServeConfig
from basert.logs import Output
from basert.supervisor.child import Child
from basert.supervisor.folder import METRICS
from basert.supervisor.restarts import Kept

GRACE_SECONDS = 1.2  # for answers on their way; after it, idle connections hold nothing up
END_SECONDS = 5.0


class HttpServer(Kept):
    def __init__(self, config: ServeConfig, folder: Path, listener: socket.socket, output: Output) -> None:
        super().__init__(config)
        self._folder = folder
        self._listener = listener
        self._output = output

    @property
    def what(self) -> str:
        return "the HTTP server"

    async def stop(self) -> None:
        self.let_die()
        if self.child is None or not self.child.alive:
            return
        self.child.send(signal.SIGTERM)
        await asyncio.wait([asyncio.ensure_future(self.child.wait())], timeout=GRACE_SECONDS)
        await self.child.end(END_SECONDS, signal.SIGQUIT)

    def _start(self) -> Child:
        fd = self._listener.fileno()
        command = [sys.executable, "-m", "basert.http.worker", str(self._folder), str(fd)]
        metrics = self._folder / METRICS
        metrics.mkdir(exist_ok=True)
        for gauge in metrics.glob("gauge_live*"):
            gauge.unlink()  # of workers that died with their arbiter
        env = {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        return Child("http", command, self._output, pass_fds=[fd], env=env)

    def _died(self, reason: str, wait: float | None) -> None:
        """Its workers finish what is open and go; those that wait on the port are served by the next one."""
