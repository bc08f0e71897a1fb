"""A server of one's own: started on a free port, awaited, ended, however this process ends.

Knows processes and ports, not what is served nor how it is asked: that is said by who starts it.
The child runs in a session of its own, so that Ctrl-C on the terminal stops an answer and not the server,
and the kernel sends it SIGTERM when this process is gone, so that a killed command leaves nothing behind.
"""

from __future__ import annotations

import functools
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Self

from basert import orphans
from basert.errors import Unavailable

HOST = "127.0.0.1"
POLL_SECONDS = 0.02
STOP_SECONDS = 20.0  # then it is killed


class ServerProcess:
    """`with ServerProcess(command, …) as server:` serves until the block ends; Unavailable when it cannot.

    `url` and `pid` are set from the start. `ready_path` answers 200 when, and only when, it can serve.
    """

    def __init__(self, command: Sequence[str], *, port: int, env: Mapping[str, str], ready_path: str) -> None:
        """`env` is the whole environment. Raises Unavailable when there is no such program."""
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._ready_path = ready_path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the server)
        self._last_log = ""  # when it has ended
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=dict(env),
                start_new_session=True,
                preexec_fn=functools.partial(orphans.end_with_parent, signal.SIGTERM, os.getpid()),
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} cannot be run: {error.strerror}; install it again.") from None
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

    def wait_ready(self, seconds: float | None = None) -> None:
        """Return when it can serve; Unavailable, with its last words, if it ends or `seconds` pass first."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._ready():
            if (status := self._process.poll()) is not None:
                last = self.last_words().removeprefix("basert: ")
                raise Unavailable(f"the server did not start: {last or f'it ended with status {status}.'}")
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(f"the server was not ready within {seconds:g} s; give it longer.")
            time.sleep(POLL_SECONDS)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

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

    def last_words(self) -> str:
        """The last line of its log."""
        return self.log().strip().rpartition("\n")[2]

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", self._ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def own_environment() -> dict[str, str]:
    """This process' without the settings of other servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BASERT_")}
    if home := os.environ.get("BASERT_HOME"):
        kept["BASERT_HOME"] = home
    return kept


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port
