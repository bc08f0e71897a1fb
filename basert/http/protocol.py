"""What gunicorn's HTTP protocol leaves out: OpenAI's form of errors, the end of silent connections, memory.

gunicorn answers what is no request (headers too large, bad framing) itself, before any app, in plain text;
and it waits for ever for a connection's first request. It has no setting for either, hence this subclass.
"""

from __future__ import annotations

import uuid
from asyncio import BaseTransport
from collections.abc import Iterable

import msgspec
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from basert.errors import BasertError, InvalidRequest


class Protocol(ASGIProtocol):  # type: ignore[misc]
    def connection_made(self, transport: BaseTransport) -> None:
        """The first request has as long to come as any later one."""
        super().connection_made(transport)
        self._arm_keepalive_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the C parser: it holds this object, and no garbage collector sees into it."""
        super().connection_lost(exc)
        self._callback_parser = None

    def _is_websocket_upgrade(self, _request: object) -> bool:
        """Nothing here speaks it: a request that offers to is answered as if it had not (RFC 9110, 7.8)."""
        return False

    def _send_error_response(
        self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        error = InvalidRequest(message) if status < 500 else BasertError(message)
        body = msgspec.json.encode(error.wire())
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "x-request-id": f"req_{uuid.uuid4().hex}",
            **dict(extra_headers),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {status} {self._get_reason_phrase(status)}", *map(": ".join, headers.items())]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def install() -> None:
    """Have gunicorn's worker speak it."""
    ASGIProtocol._check_h1c_protocol_available()  # what it finds is kept, and read, in the base class only
    gasgi.ASGIProtocol = Protocol
