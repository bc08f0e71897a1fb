"""`basert chat`: a conversation through a pipe, and Ctrl-C on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.cli.conftest import BASERT, Run
from tests.serving import Server
from tests.tiny import SENTENCE


class Terminal:
    """A process on a terminal of its own, driven as a person would: type, and wait for what must appear."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            preexec_fn=lambda: _own_terminal(theirs),
        )
        os.close(theirs)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def await_text(self, wanted: str) -> None:
        """Read until `wanted` has come; what came up to there will not be found again."""
        while wanted not in self._seen:
            self._seen += os.read(self._ours, 1024).decode(errors="replace")  # OSError: it ended without
        self._seen = self._seen.partition(wanted)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def _own_terminal(fd: int) -> None:
    os.login_tty(fd)


@contextmanager
def on_terminal(env: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal([*BASERT, *arguments], env)
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_conversation_through_a_pipe(basert: Run, server: Server) -> None:
    lines = "hello\n/system Be brief.\nand you?\n/clear\n/nonsense\n\n/exit\nnever asked\n"
    done = basert("chat", "tiny", "--temperature", "0", input=lines, BASERT_URL=server.url)
    assert done.returncode == 0
    assert done.stdout == f"{SENTENCE}\n" * 2
    assert done.stderr.count("tokens/s") == 2
    for words in ("The system message is set.", "The conversation is forgotten.", "There is no /nonsense."):
        assert words in done.stderr


def test_the_conversation_grows_until_it_is_cleared(basert: Run, server: Server) -> None:
    """Tiny's context of 256 tokens is full after some turns; /clear makes room again."""
    lines = "hello\n" * 12 + "/clear\nhello\n"
    done = basert("chat", "tiny", input=lines, BASERT_URL=server.url)
    refused = done.stderr.count("(/clear starts afresh)")
    assert refused > 0
    assert done.stdout.count("\n") == 13 - refused
    assert "tokens/s" in done.stderr.splitlines()[-1]


def test_control_c_stops_the_answer_and_not_the_program(server: Server, environment: dict[str, str]) -> None:
    with on_terminal(environment, "chat", "slow", "--url", server.url) as terminal:
        terminal.await_text("> ")
        terminal.type("hello\n")
        terminal.await_text("world")
        terminal.type("\x03")
        terminal.await_text("(stopped)")
        terminal.await_text("> ")
        terminal.type("half a line\x03")
        terminal.await_text("(Ctrl-D leaves)")
        terminal.await_text("> ")  # before it, the terminal itself would take the Ctrl-D
        terminal.type("\x04")
        assert terminal.process.wait() == 0


def end_with(how: signal.Signals) -> Callable[[Terminal], None]:
    """Again, if need be: Python's readline does not see what comes between its prompt and its waiting."""

    def end(terminal: Terminal) -> None:
        while True:
            terminal.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                terminal.process.wait(timeout=10)
                return

    return end


@pytest.mark.parametrize(
    "end",
    [lambda terminal: terminal.type("\x04"), *map(end_with, (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL))],
    ids=["Ctrl-D", "SIGTERM", "SIGHUP", "SIGKILL"],
)
def test_its_own_server_ends_with_it(environment: dict[str, str], end: Callable[[Terminal], None]) -> None:
    with on_terminal(environment, "chat", "slow") as terminal:
        terminal.await_text("> ")
        terminal.type("hello\n")
        terminal.await_text("world")
        terminal.type("\x03")
        terminal.await_text("> ")
        family = psutil.Process(terminal.process.pid).children(recursive=True)
        assert len(family) >= 3  # supervisor, engine, worker
        end(terminal)
        terminal.process.wait()
        assert psutil.wait_procs(family, timeout=30)[1] == []
