"""One exec'd child process: how it starts, how it is known to have ended, where its output goes.

Knows nothing of what it does. Each child leads a session of its own, so that Ctrl-C on the terminal reaches
the supervisor alone, and is killed by the kernel when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

from basert import orphans
from basert.logs import Output

TAIL_LINES = 20
MAX_LINE = 1 << 16  # bytes; a longer one is cut in pieces
KILLED_SECONDS = 10.0  # for the kernel to end what was sent SIGKILL
LAST_WORDS_SECONDS = 0.2  # for output that is still in the pipe
# What systemd says to the supervisor is not meant for its children.
_PRIVATE = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}


class Child:
    """Started on creation, in the running event loop. Raises OSError when it cannot be."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        output: Output,
        *,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """env: beside what the supervisor's own environment holds."""
        self.name = name
        self._output = output
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name not in _PRIVATE} | dict(env or {}),
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=functools.partial(orphans.end_with_parent, signal.SIGKILL, os.getpid()),
        )
        self.pid = self._popen.pid
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch()
        self._relay = asyncio.create_task(self._relay_output(), name=f"output of {name}")

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    async def wait(self) -> int:
        """Its exit status once it has ended; negative: the signal that ended it."""
        return await asyncio.shield(self._ended)

    def send(self, how: signal.Signals) -> None:
        if self.alive:
            self._popen.send_signal(how)

    def kill(self) -> None:
        """End it and its own children, at once; only while it is alive is the group's number its own."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def end(self, patience: float, how: signal.Signals = signal.SIGTERM) -> int:
        """Send `how`, kill it after `patience` seconds, return its exit status."""
        self.send(how)
        try:
            return await asyncio.wait_for(self.wait(), patience)
        except TimeoutError:
            self.kill()
            return await asyncio.wait_for(self.wait(), KILLED_SECONDS)

    async def last_words(self) -> str:
        """After its end: the last line it printed by other means than the log, or nothing."""
        await asyncio.wait([self._relay], timeout=LAST_WORDS_SECONDS)
        return self._tail[-1] if self._tail else ""

    def _watch(self) -> None:
        loop, pidfd = asyncio.get_running_loop(), os.pidfd_open(self.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._ended.set_result(self._popen.wait())

        loop.add_reader(pidfd, ended)

    async def _relay_output(self) -> None:
        """Until everybody who inherited the pipe is gone."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._popen.stdout
        )
        rest = b""
        with contextlib.closing(transport):
            while data := await reader.read(MAX_LINE):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > MAX_LINE:
                    lines, rest = [*lines, rest], b""
                self._print(lines)
            self._print([rest] if rest else [])

    def _print(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text and not self._output.relay(self.name, self.pid, text):
                self._tail.append(text)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"it ended with status {status}"
    if status == -signal.SIGKILL:
        return "it was ended by SIGKILL; perhaps memory ran out"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"
