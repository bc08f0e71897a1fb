"""systemd's notification socket (sd_notify): READY, STATUS, STOPPING, RELOADING, WATCHDOG. Else silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

PATIENCE = 1.0  # seconds for a systemd that is behind with reading


class Notifier:
    """Sends to $NOTIFY_SOCKET; a systemd that does not listen is no reason to stop."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = (
            "\0" + address[1:] if address.startswith("@") else address
        )  # @: the abstract namespace
        self._watchdog = _watchdog_seconds(environ)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Followed by `ready` when done."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """`seconds`: how long the end may take."""
        self._send(f"STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    async def keep_watchdog(self) -> None:
        """For as long as the event loop turns, tell the watchdog, twice as often as it asks."""
        while self._watchdog:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                sock.sendto(text.encode(), self._address)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """What systemd expects of this process, 0 if nothing."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdigit() and pid == str(os.getpid()) else 0.0
