"""`python -m basert.http.worker RUN_FOLDER FD`: gunicorn with the HTTP app, on a socket already bound.

Knows gunicorn's settings and nothing of HTTP. The arbiter imports the app's modules, so that workers share
them and start quickly; each worker makes its own app. What keeps this free of orphans: the kernel ends the
arbiter with the supervisor, and a worker that loses the supervisor ends itself.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon.asgi
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from prometheus_client.multiprocess import mark_process_dead

from basert import config, logs, orphans
from basert.config import ServeConfig
from basert.http import protocol
from basert.http.access import AccessLog
from basert.http.app import create_app
from basert.http.models import Models
from basert.supervisor.folder import CONFIG, CONTROL, RESPONSES

MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100
HANG_SECONDS = 60  # a worker whose event loop stands still for this long is killed
ORPHAN_SECONDS = 0.5  # for the last error events to leave

_log = logging.getLogger(__name__)


class HttpServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, told by us rather than by its own command line and files."""

    def __init__(self, settings: ServeConfig, folder: Path, listener: int) -> None:
        self._settings = settings
        self._folder = folder
        self._listener = listener
        self._worker: Any = None  # gunicorn's, once this process is one
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._gunicorn_settings().items():
            self.cfg.set(name, value)

    def load(self) -> falcon.asgi.App[Any, Any] | AccessLog:
        """In each worker."""
        logs.setup("http", self._settings.log_format, self._settings.log_level)
        models = Models(self._folder / CONTROL, on_orphaned=_end_worker)
        app: falcon.asgi.App[Any, Any] = create_app(self._settings, models, self._folder / RESPONSES)
        app.add_middleware(Lifespan(models, self._settings.drain_timeout, lambda: self._worker))
        return AccessLog(app) if self._settings.access_log else app

    def _gunicorn_settings(self) -> dict[str, Any]:
        return {
            "bind": f"fd://{self._listener}",
            "workers": self._settings.worker_count,
            "worker_class": "asgi",
            "asgi_loop": "asyncio",
            "asgi_lifespan": "on",
            "asgi_disconnect_grace_period": 0,  # a handler ends with its client
            "http_parser": "fast",
            "keepalive": self._settings.idle_timeout,
            "timeout": HANG_SECONDS,
            "graceful_timeout": math.ceil(self._settings.drain_timeout) + 1,
            "limit_request_line": MAX_HEADER_BYTES,
            "limit_request_field_size": MAX_HEADER_BYTES,
            "limit_request_fields": MAX_HEADERS,
            "worker_tmp_dir": str(self._folder),
            "control_socket_disable": True,
            "logger_class": GunicornLog,
            "proc_name": "basert",
            "post_fork": self._after_fork,
            "child_exit": lambda _arbiter, worker: mark_process_dead(worker.pid),
        }

    def _after_fork(self, arbiter: Any, worker: Any) -> None:
        """A dead arbiter's workers get SIGTERM."""
        orphans.end_with_parent(signal.SIGTERM, arbiter.pid)
        self._worker = worker


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's errors go where all other lines go; the rest of its words only with --log-level debug."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        everything = logging.getLogger().getEffectiveLevel() <= logging.DEBUG
        self.error_log.setLevel(logging.DEBUG if everything else logging.ERROR)


class Lifespan:
    """Falcon's hooks around a worker's life. `worker` returns gunicorn's.

    gunicorn cuts what is still open some time after SIGTERM; before that it ends with an error event.
    """

    def __init__(self, models: Models, drain_seconds: float, worker: Callable[[], Any]) -> None:
        self._models = models
        self._drain_seconds = drain_seconds
        self._worker = worker

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        await self._models.start()

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        await self._models.stop()

    def _terminate(self) -> None:
        """gunicorn looks up once a second; no new connection must be taken until then."""
        self._models.end_within(self._drain_seconds)
        for server in self._worker().servers:
            server.close()
        self._worker().handle_exit_signal()


def _end_worker() -> None:
    """The supervisor is gone: say the last words to open streams, then go, waiting for no idle connection."""
    _log.error("the supervisor is gone; this HTTP worker ends")
    asyncio.get_running_loop().call_later(ORPHAN_SECONDS, os.kill, os.getpid(), signal.SIGQUIT)


def main() -> None:
    folder, listener = Path(sys.argv[1]), int(sys.argv[2])
    settings = config.from_json((folder / CONFIG).read_bytes())
    logs.setup("http arbiter", settings.log_format, settings.log_level)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a file
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other CPUs are the engines'
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # likewise, and numpy's idle threads spin
    protocol.install()
    gc.freeze()  # what is imported by now stays shared between the workers
    HttpServer(settings, folder, listener).run()


if __name__ == "__main__":
    main()
