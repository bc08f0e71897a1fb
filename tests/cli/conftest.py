"""The command line as its users run it: `basert(...)` in a process of its own, beside a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle

Run = Callable[..., subprocess.CompletedProcess[str]]
BASERT = (sys.executable, "-m", "basert")


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `tiny`, and `slow`, whose steps take 20 ms and whose answer many seconds."""
    folder = tmp_path_factory.mktemp("store")
    write_testing_bundle(folder)
    write_testing_bundle(folder, name="slow", step_seconds=0.02, max_context=2048, sentence=SENTENCE * 50)
    return folder


@pytest.fixture(scope="package")
def environment(store: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BASERT_")}
    return {**plain, "BASERT_HOME": str(store)}


@pytest.fixture(scope="package")
def server(store: Path) -> Iterator[Server]:
    with Server([store / "tiny", store / "slow"]) as running:
        yield running


@pytest.fixture
def basert(environment: dict[str, str]) -> Run:
    """basert(*arguments, input="", **environment): runs to its end with both outputs captured."""

    def run(*arguments: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:  # noqa: A002
        env = {**environment, **more}
        return subprocess.run([*BASERT, *arguments], input=input, env=env, capture_output=True, text=True)

    return run
