"""A server on a terminal: what it prints there, Ctrl-C, and the terminal's end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes.live import all_gone

CTRL_C = b"\x03"


class Terminal:
    """`basert serve` as the foreground process of a pseudo-terminal of its own."""

    def __init__(self, *flags: str) -> None:
        self.master, slave = os.openpty()
        command = ["setsid", "--ctty", sys.executable, "-m", "basert", "serve", "--port", "0", *flags]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.said = b""
        while b"Ctrl-C ends it" not in self.said:
            self.said += os.read(self.master, 4096)
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def ends(self) -> bool:
        return self.process.wait(30) == 0 and all_gone(self.children)


@pytest.fixture
def terminal(bundle: Path, run_dir: Path) -> Iterator[Terminal]:
    terminal = Terminal(str(bundle), "--run-dir", str(run_dir), "--threads", "1", "--api-key", "k-1")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()


def test_it_prints_what_to_paste_and_ctrl_c_ends_it(terminal: Terminal) -> None:
    curl = re.search(r"curl .*?'\r\n", terminal.said.decode(), re.DOTALL)
    assert curl is not None
    answer = subprocess.run(["bash", "-c", curl[0].replace("\r", "")], capture_output=True, check=True)
    assert b'"object":"chat.completion"' in answer.stdout
    snippet = terminal.said.decode().replace("\r", "").partition("  from openai")[2].partition("\nCtrl-C")[0]
    code = ("  from openai" + snippet).replace("\n  ", "\n").removeprefix("  ")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert "Boxing wizards" in told.stdout
    os.write(terminal.master, CTRL_C)
    assert terminal.ends()
    os.close(terminal.master)


def test_a_closed_terminal_ends_it(terminal: Terminal) -> None:
    os.close(terminal.master)
    assert terminal.ends()
