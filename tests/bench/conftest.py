"""Two servers of the same kind, real and small: what is compared in tests is the comparing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from basert.bench import environment
from basert.bench.peers.basert_itself import Basert
from basert.bench.peers.generating import Generating
from basert.bench.peers.peer import Model, Peer, PeerFailed, Setup
from basert.bench.peers.results import Comparison, Contestant
from basert.bench.peers.running import Entrant
from basert.bench.peers.texts import Texts
from basert.bench.peers.trial import Trial
from basert.bench.prompts import Prompts
from basert.text import tokenizer
from tests.tiny import write_testing_bundle


class Twin(Basert):
    name = "twin"


class Broken(Peer):
    """Its process ends before it is ready."""

    name = "broken"
    recipe = "1"
    notes: ClassVar[tuple[str, ...]] = ()

    def versions(self, room: Path) -> dict[str, str]:
        return {}

    def command(self, setup: Setup, port: int) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('no tiles on this machine')"]


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its steps are slow enough that no two tokens count as one."""
    folder = tmp_path_factory.mktemp("store")
    bundle = write_testing_bundle(folder, max_context=2048, slots=8, step_seconds=0.005)

    def nowhere() -> Path:
        raise PeerFailed("the testing bundle was exported from nothing.")

    return Model("tiny", bundle, "0", "decoder", nowhere, nowhere)


@pytest.fixture(scope="package")
def texts(model: Model) -> Texts:
    return Texts.of(tokenizer.load(model.bundle))


@pytest.fixture(scope="package")
def generating(model: Model, texts: Texts) -> Generating:
    return Generating(Prompts.from_encoder(tokenizer.load(model.bundle).encode), texts)


def entrant(peer: Peer, model: Model) -> Entrant:
    return Entrant(peer, Setup(Path(), Path(), model, 1, 4, 1536))


def comparison(entrants: list[Entrant], trials: list[Trial[Any]]) -> Comparison:
    return Comparison(
        started="2026-01-01T00:00:00+00:00",
        command=["basert", "bench-peers"],
        machine=environment.machine(),
        model="tiny",
        source="testing",
        bundle="fp32 0",
        settings={"threads": 1, "streams": 4, "context": 1536, "repetitions": 2},
        workloads={"start": "starting", **{trial.name: trial.about for trial in trials}},
        headlines={"start": "answered_s", **{trial.name: trial.headline for trial in trials}},
        contestants=[
            Contestant(one.name, {"basert": "1"}, ["serve", "a b"], {}, ["untuned"], 0) for one in entrants
        ],
    )
