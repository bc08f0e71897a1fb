"""A bundle whose answers take their time, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server
from tests.tiny import write_testing_bundle

STEP_SECONDS = 0.02


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slow enough that a stream of FOREVER tokens is open for as long as a test needs it to be."""
    folder = tmp_path_factory.mktemp("b")
    return write_testing_bundle(folder, step_seconds=STEP_SECONDS, slots=8, max_context=20_000)


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def server(bundle: Path, run_dir: Path) -> Iterator[Server]:
    with Server([bundle], ["--run-dir", str(run_dir), "--drain-timeout", "1"]) as server:
        yield server
