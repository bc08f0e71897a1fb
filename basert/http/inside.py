"""Requests to the app from within its own process: no socket, and the same answers. Knows ASGI, no endpoint.

Whoever asks is trusted: it says whose request it is, and no key is asked for. A request that comes over the
wire cannot: gunicorn makes its scope, and puts nothing there that a client chose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

OWNER = "basert.owner"  # in the scope: whose request it is, as Keys would have found out

# How urgent everything is that this context asks of engines, at most; as basert.messages has it.
lane: ContextVar[int] = ContextVar("lane", default=0)

App = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


async def ask(app: App, path: str, body: bytes, owner: str) -> Answer:
    """POST a JSON body, after all interactive requests. Raises what the app leaves unanswered."""
    answer, chunks = Answer(), [body]
    kind, size = (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())

    async def receive() -> dict[str, Any]:
        if not chunks:
            await asyncio.Event().wait()  # nobody hangs up
        return {"type": "http.request", "body": chunks.pop(), "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            answer.status = event["status"]
            answer.headers = {name.decode(): value.decode("latin-1") for name, value in event["headers"]}
        else:
            answer.body += event.get("body", b"")

    token = lane.set(1)
    try:
        await app(_scope(path, [kind, size], owner), receive, send)
    finally:
        lane.reset(token)
    return answer


def _scope(path: str, headers: list[tuple[bytes, bytes]], owner: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": None,
        "server": None,
        OWNER: owner,
    }
