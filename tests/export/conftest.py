"""One small checkpoint for all, and `basert(...)` in a process with a store and a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.small import write_checkpoint

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store (home/store) and cache, a package index of home/wheels alone, no hub."""
    for name in [name for name in os.environ if name.startswith(("BASERT_", "HF_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BASERT_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path


@pytest.fixture
def basert(home: Path) -> Run:
    """basert(*arguments, **environment) -> the finished process, both outputs as text."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "basert", *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run
