"""Progress: a bar where stderr is a terminal, lines where it is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from basert import progress

HALF = """
from basert import progress
with progress.task("download", unit="B") as show:
    show(50_000_000, 100_000_000)
    progress.note("by the way")
"""


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.task("download", unit="B") as show:
        show(50_000_000, 100_000_000)
    first, half, last = capsys.readouterr().err.splitlines()
    assert (first, half) == ("download …", "download: 50% of 100MB")
    assert last.startswith("download: done in ")


def test_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.task("parity") as show:
        for done in range(1000):
            show(done, 1000)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_what_fails_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), progress.task("parity"):
        raise ValueError
    assert capsys.readouterr().err == "parity …\n"


def test_bar_on_a_terminal_that_tells_no_size() -> None:
    ours, terminal = os.openpty()
    subprocess.run([sys.executable, "-c", HALF], stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "download:  50%" in shown
    assert "50.0M/100M" in shown
    assert "by the way" in shown
