"""A `basert serve` of one's own: started on a free port, awaited, ended, however this process ends.

Knows processes and ports, not requests: those go over HTTP like anybody else's (basert.client).
The child runs in a session of its own, so that Ctrl-C on the terminal stops an answer and not the server,
and the kernel sends it SIGTERM when this process is gone, so that a killed command leaves nothing behind.
"""

from __future__ import annotations

import functools
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

import click

from basert import orphans
from basert.errors import Unavailable

HOST = "127.0.0.1"
POLL_SECONDS = 0.05
STOP_SECONDS = 20.0  # then it is killed


class LocalServer:
    """`with LocalServer(["smollm2"]) as server:` serves until the block ends; Unavailable when it cannot.

    `url`, `api_key` (other users of this machine can reach 127.0.0.1 too) and `pid` are set from the start.
    """

    def __init__(
        self,
        models: Sequence[str],
        flags: Sequence[str] = (),
        *,
        api_key: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.api_key = api_key
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the server)
        self._last_log = ""  # when it has ended
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "basert",
                "serve",
                *models,
                "--host",
                HOST,
                "--port",
                str(self.port),
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**_environment(api_key), **(env or {})},
            start_new_session=True,
            preexec_fn=functools.partial(orphans.end_with_parent, signal.SIGTERM, os.getpid()),
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self) -> None:
        """Return when every model answers; Unavailable, with the server's last words, if it ends first."""
        while not self._ready():
            if (status := self._process.poll()) is not None:
                last = self.log().strip().rpartition("\n")[2].removeprefix("basert: ")
                raise Unavailable(f"the server did not start: {last or f'it ended with status {status}.'}")
            time.sleep(POLL_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send `how`, wait for the end, return the exit status (negative: a signal's number)."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        if not self._log.closed:
            self._last_log = self.log()
            self._log.close()
        return status

    def log(self) -> str:
        """What it has written so far; by pread, for the child shares this file's offset and writes there."""
        if self._log.closed:
            return self._last_log
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _environment(api_key: str | None) -> dict[str, str]:
    """Ours without the settings of other servers. The key goes here, for anybody can read a command line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BASERT_")}
    if home := os.environ.get("BASERT_HOME"):
        kept["BASERT_HOME"] = home
    return kept | ({"BASERT_API_KEY": api_key} if api_key else {})


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def serve_for_me(bundle: Path, flags: Sequence[str] = ()) -> LocalServer:
    """A server for one bundle and this process alone, with a line on stderr while it loads."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)  # so that `with` blocks end
    click.echo(f"loading {bundle.name} …", err=True)
    own = ("--workers", "1", "--drain-timeout", "0", "--restart-limit", "2", "--request-timeout", "0")
    return LocalServer([str(bundle)], (*own, *flags), api_key=secrets.token_hex(16))


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
