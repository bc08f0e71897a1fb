"""The server's port, bound before any process starts; every gunicorn takes the same socket over.

So a restarted gunicorn refuses no connection, and a port that is taken is an error at once. Knows no process.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

from basert.errors import ConfigError

BACKLOG = 2048
FIRST_PASSED = 3  # systemd's SD_LISTEN_FDS_START


def listen(host: str, port: int, environ: Mapping[str, str]) -> socket.socket:
    """The socket that systemd passed, else one on host and port. Raises ConfigError."""
    return _passed(environ) or _bound(host, port)


def address(listener: socket.socket) -> tuple[str, int]:
    """Host (in brackets if it is an IPv6 address) and port for an URL; a wildcard becomes localhost."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        return "localhost", port
    return (f"[{host}]" if ":" in host else host), port


def _passed(environ: Mapping[str, str]) -> socket.socket | None:
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if environ.get("LISTEN_FDS") != "1":
        raise ConfigError("systemd passed more than one socket; give basert.socket one ListenStream.")
    listener = socket.socket(fileno=FIRST_PASSED)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise ConfigError("systemd passed no TCP socket; give basert.socket a port as ListenStream.")
    listener.set_inheritable(False)
    return listener


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {host} is no address of this machine; 127.0.0.1 or 0.0.0.0 are.") from None
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_refusal(host, port, error)) from None
    return listener


def _refusal(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} of {host} is taken by another server; choose another with --port."
        case errno.EACCES:
            return f"Port {port} needs root's rights; choose one above 1023 with --port."
        case errno.EADDRNOTAVAIL:
            return f"--host {host} is no address of this machine; 127.0.0.1 or 0.0.0.0 are."
        case _:
            return f"Port {port} of {host} cannot be listened on ({error.strerror}); mend --host or --port."
