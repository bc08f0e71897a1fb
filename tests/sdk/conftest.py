"""Real servers over testing bundles: an open one, and a busy one behind a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server
from tests.tiny import tiny_tokenizer, write_testing_bundle

KEY = "sesame"


def magic_ids() -> list[int]:
    """The tokens that make the testing session crash: not to be drawn."""
    tokenizer = tiny_tokenizer()
    return [tokenizer.token_to_id(word) for word in ("CRASH", "RAISE")]


@pytest.fixture(scope="package")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `tiny`, which always says SENTENCE, and `dice`, whose answers depend on the seed."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [write_testing_bundle(folder), write_testing_bundle(folder, name="dice", peak=3.0)]
    with Server(bundles) as server:
        yield server


@pytest.fixture(scope="package")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`slow`: a single slot, and a step takes 20 ms."""
    folder = tmp_path_factory.mktemp("bundles")
    return write_testing_bundle(folder, name="slow", slots=1, step_seconds=0.02, max_context=20_000)


@pytest.fixture(scope="package")
def busy_server(slow_bundle: Path) -> Iterator[Server]:
    """`slow` behind a key, and nothing may wait for the slot."""
    with Server([slow_bundle], ("--max-queue", "0"), api_key=KEY) as server:
        yield server
