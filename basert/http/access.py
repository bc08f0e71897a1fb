"""One log line per answered request: method, path, status, milliseconds, generated tokens, request id.

Wraps the whole ASGI app, so that a stream is logged when it ends; how many tokens it took is counted by the
engine client, in the tally of the request's context. Knows no body and no key: neither is ever logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

CLIENT_LEFT = 499  # the status, as nginx has it, of a request that nobody waited for
# What monitors ask for every few seconds is worth a line only with --log-level debug.
POLLED = frozenset({"/health", "/livez", "/readyz", "/metrics", "/v1/metrics"})

_log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Tally:
    """What one request has cost so far."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0


tally: ContextVar[Tally] = ContextVar("tally", default=Tally())  # noqa: B039  (nobody reads the default)


class AccessLog:
    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, request_id = time.perf_counter(), CLIENT_LEFT, "-"

        async def noting(event: dict[str, Any]) -> None:
            nonlocal status, request_id
            if event["type"] == "http.response.start":
                status, request_id = event["status"], _request_id(event["headers"])
            await send(event)

        mine = Tally()
        tally.set(mine)
        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            _write(scope["method"], scope["path"], status, seconds, mine.tokens, request_id)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("latin-1")
    return "-"


def _write(method: str, path: str, status: int, seconds: float, tokens: int, request_id: str) -> None:
    level = logging.DEBUG if path in POLLED else logging.INFO
    if not _log.isEnabledFor(level):
        return
    fields = {"method": method, "path": path, "status": status, "tokens": tokens, "request_id": request_id}
    _log.log(
        level,
        "%s %s %d %.1f ms %d tokens %s",
        *(method, path, status, seconds * 1000, tokens, request_id),
        extra={"fields": fields | {"ms": round(seconds * 1000, 1)}},
    )
