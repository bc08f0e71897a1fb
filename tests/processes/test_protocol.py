"""What gunicorn answers itself, over a bare socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    run_dir = tmp_path_factory.mktemp("r")
    with Server([bundle], ["--run-dir", str(run_dir)]) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Waits a second for a request: no server for clients that a machine may stall."""
    run_dir = tmp_path_factory.mktemp("r")
    with Server([bundle], ["--run-dir", str(run_dir), "--keep-alive-timeout", "1"]) as server:
        yield server


def _say(server: Server, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(request)
        with sock.makefile("rb") as answer:
            return answer.read()


MANY = b"".join(b"A%d: x\r\n" % number for number in range(150))


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n" % (b"x" * 9000), 431, "exceeds limit (8190)"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % MANY, 431, "exceeds limit (100)"),
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9000), 414, "exceeds limit (8190)"),
        (b"rubbish\r\n\r\n", 400, "Invalid HTTP request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "Invalid Content-Length value"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "Content-Length with Transfer-Encoding",
        ),
    ],
)
def test_what_is_no_request_is_answered_in_openais_form(
    server: Server, request_: bytes, status: int, message: str
) -> None:
    head, _, body = _say(server, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nx-request-id: req_" in head
    error = json.loads(body)["error"]
    assert error == {
        "message": error["message"],
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert message in error["message"]


def test_an_offer_to_speak_websocket_is_passed_over(server: Server) -> None:
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n" % key
    answer = _say(server, head + b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'{"status":"ok"}HTTP/1.1 404 ' in answer  # and the next request is one


@pytest.mark.parametrize("beginning", [b"", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_that_stays_silent_is_closed(hasty_server: Server, beginning: bytes) -> None:
    assert _say(hasty_server, beginning) == b""
