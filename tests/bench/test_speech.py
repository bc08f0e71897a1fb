"""A comparison of servers that transcribe, real but for the model: what is asked, noted and refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from basert.bench.load import Outcome
from basert.bench.peers.markdown import render
from basert.bench.peers.peer import Model, Peer, Setup
from basert.bench.peers.results import Comparison
from basert.bench.peers.rounds import Plan, Rounds
from basert.bench.peers.running import Entrant
from basert.bench.peers.transcribing import CLIENTS, TRIALS, Transcribe, Transcribing
from basert.bench.recordings import RATE, Recording, Recordings
from basert.bench.transcribing import check, request
from basert.client import RequestFailed, Segment, Transcript
from tests.bench.conftest import comparison
from tests.bench.parrot import SAID

ROOT = Path(__file__).parents[2]
NOISE = np.random.default_rng(0).integers(-9000, 9000, RATE).astype(np.int16)
ONE_SECOND = Recordings([Recording(NOISE, SAID)], "here")
SHORT = Transcribe("2xshort", "two clients", "sound_per_second", 2, 6)
TIMES = Transcribe("1xwords", "with times", "sound_per_second", 1, 3, asked="words")


class Parrot(Peer):
    name = "parrot"
    family = "speech"
    recipe = "1"
    notes: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()

    def versions(self, room: Path) -> dict[str, str]:
        return {}

    def command(self, setup: Setup, port: int) -> list[str]:
        return [sys.executable, "-m", "tests.bench.parrot", str(setup.room), str(port), *self.flags]

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {"PYTHONPATH": str(ROOT)}


class Deaf(Parrot):
    name = "deaf"
    flags = ("--deaf",)


class Timeless(Parrot):
    name = "timeless"
    flags = ("--timeless",)


async def compare(room: Path, *peers: Peer) -> Comparison:
    model = Model("parrot", Path(), "0", "speech", Path, Path)
    entrants = [Entrant(peer, Setup(room, Path(), model, 1, 4, 256)) for peer in peers]
    report = comparison(entrants, [SHORT, TIMES])
    rounds = Rounds(Plan([SHORT, TIMES], 1, 120), Transcribing(ONE_SECOND), report, lambda done, total: None)
    await rounds.run(entrants)
    return report


async def test_speed_stands_beside_word_errors(tmp_path: Path) -> None:
    report = await compare(tmp_path, Parrot())
    assert report.complete
    assert not report.failures
    assert not report.left_out
    for trial in (SHORT, TIMES):
        [sample] = [one.values for one in report.samples if one.workload == trial.name]
        assert sample["sound_per_second"] > 0
        assert sample["sound_per_second"] * sample["real_time_factor"] == pytest.approx(1)
        assert 0 < sample["latency_ms"] <= sample["latency_p99_ms"]
        assert sample["word_errors"] == 0
    page = render(report)
    [row] = [line for line in page.splitlines() if line.startswith("| 2xshort: two clients")]
    assert row.endswith(", WER 0.0 % |")
    assert "WER: words put in" in page


async def test_no_sound_is_sent_twice(tmp_path: Path) -> None:
    await compare(tmp_path, Parrot())
    sent = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sent) > SHORT.requests + TIMES.requests
    assert {*sent} == {1}


async def test_who_hears_something_else_gets_no_number(tmp_path: Path) -> None:
    report = await compare(tmp_path, Deaf())
    assert [one.workload for one in report.samples] == ["start"]
    assert [one.workload for one in report.failures] == ["2xshort", "1xwords"]
    assert all("it wrote something else than was said" in one.reason for one in report.failures)


async def test_who_knows_no_times_is_left_out(tmp_path: Path) -> None:
    report = await compare(tmp_path, Timeless())
    assert "it answered no segments with times" in report.left_out["timeless"]


def answered(*spans: tuple[float, float]) -> Outcome:
    return Outcome(0.0, [1.0], transcript=Transcript(SAID, [Segment(*span) for span in spans]))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Outcome(0.0, error="too long"), "too long"),
        (answered(), "no segments with times"),
        (answered((0.6, 0.8), (0.1, 0.5)), "in no order"),
        (answered((0.6, 0.5)), "in no order"),
        (answered((0.0, 2.5)), "ends at 2.5 s of 1"),
    ],
)
def test_less_than_was_asked_is_a_failure(wrong: Outcome, why: str) -> None:
    pieces = [*ONE_SECOND.pieces]
    check([answered((0.0, 0.5), (0.5, 1.0))], pieces, "segments")
    with pytest.raises(RequestFailed, match=why):
        check([wrong], pieces, "segments")
    with pytest.raises(RequestFailed, match="no words with times"):
        check([answered((0.0, 1.0))], pieces, "words")


def test_what_is_asked_for() -> None:
    fields = request("m", ONE_SECOND.pieces[0], "words")["fields"]
    assert ("response_format", "verbose_json") in fields
    assert [value for name, value in fields if name == "timestamp_granularities[]"] == ["word", "segment"]
    assert ("response_format", "json") in request("m", ONE_SECOND.pieces[0], "text")["fields"]


def test_every_client_has_something_to_send() -> None:
    for trial in TRIALS.values():
        assert isinstance(trial, Transcribe)
        assert trial.requests >= trial.clients
        assert trial.clients in (1, CLIENTS)


def test_fronts_need_nothing_of_basert_but_themselves() -> None:
    code = "import sys, basert.bench.peers.fronts.transcriptions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"msgspec", "falcon", "click"} & set(done.stdout.split())
