"""One log line per answered request: method, path, status, milliseconds, tokens, request id, the key's name.

Wraps the whole ASGI app, so that a stream is logged when it ends; how many tokens it took is counted by the
engine client, in the request's Caller. Knows no body and no key but its name: neither is ever logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from basert.http.caller import Caller, caller

CLIENT_LEFT = 499  # the status, as nginx has it, of a request that nobody waited for
# What monitors ask for every few seconds is worth a line only with --log-level debug.
POLLED = frozenset({"/health", "/livez", "/readyz", "/metrics", "/v1/metrics"})

_log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


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

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            _write(scope["method"], scope["path"], status, seconds, request_id, caller.get())


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("latin-1")
    return "-"


def _write(method: str, path: str, status: int, seconds: float, request_id: str, who: Caller) -> None:
    level = logging.DEBUG if path in POLLED else logging.INFO
    if not _log.isEnabledFor(level):
        return
    tokens, name = who.tokens, who.key.name
    fields = {"method": method, "path": path, "status": status, "tokens": tokens, "request_id": request_id}
    if name:
        fields["key"] = name
    _log.log(
        level,
        "%s %s %d %.1f ms %d tokens %s%s",
        *(method, path, status, seconds * 1000, tokens, request_id, f" {name}".rstrip()),
        extra={"fields": fields | {"ms": round(seconds * 1000, 1)}},
    )
