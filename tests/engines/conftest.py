"""A bundle whose next token is a hash of the whole sequence before it, and its session to ask directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from basert.manifest import read_manifest
from engines.sessions import SessionOptions
from engines.sessions.testing import TestingSession, open_testing
from tests.engines.hashed import CONTEXT, SLOTS
from tests.tiny import GRAPH, write_testing_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hashed")
    return write_testing_bundle(folder, sentence="", max_context=CONTEXT, slots=SLOTS, peak=5.0)


@pytest.fixture(scope="module")
def model(bundle: Path) -> TestingSession:
    session = open_testing(bundle / GRAPH, read_manifest(bundle).kv_cache, SessionOptions(1, CONTEXT))
    assert isinstance(session, TestingSession)
    return session
