"""`basert bench` against a real server: what it counts can be counted again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert import __version__
from basert.bench.prompts import Prompts
from basert.bench.results import Report, percentile
from basert.manifest import digest
from basert.profile import Profile
from basert.server_process import ServerProcess, free_port
from tests.audio.recordings import NAMES, speech
from tests.cli.conftest import Run
from tests.http.hearing import wav
from tests.packages import DATA
from tests.serving import Server
from tests.tiny_speech import write_testing_speech

SMALL = (
    "--batch",
    "1,2",
    "--prompt-tokens",
    "8",
    "--output-tokens",
    "16",
    "--repetitions",
    "2",
    "--requests",
    "2",
)
LOAD = ("--concurrency", "1,6", "--load-prompt-tokens", "10", "--load-output-tokens", "5")


@pytest.fixture
def report(basert: Run, server: Server, tmp_path: Path) -> Report:
    file = tmp_path / "bench.json"
    done = basert("bench", "tiny", "--url", server.url, *SMALL, *LOAD, "--json", str(file))
    assert done.returncode == 0, done.stderr
    for title in ("Prefill:", "Decode:", "Load:"):
        assert title in done.stdout
    return msgspec.json.decode(file.read_bytes(), type=Report)


def test_every_cell_is_measured(report: Report) -> None:
    assert report.complete
    assert [(one.batch, one.prompt_tokens) for one in report.prefill] == [(1, 8), (2, 8)]
    decode = [(one.batch, one.prompt_tokens, one.constrained) for one in report.decode]
    assert decode == [(1, 8, False), (1, 8, True), (2, 8, False), (2, 8, True)]
    assert all(one.output_tokens >= 16 for one in report.decode)
    assert [(one.concurrency, one.requests, one.errors) for one in report.load] == [(1, 4, {}), (6, 24, {})]
    for spread in [one.tokens_per_second for one in (*report.prefill, *report.decode)]:
        assert 0 < spread.lowest <= spread.median <= spread.highest
        assert len(spread.samples) == report.repetitions
    for level in report.load:
        ratio = level.output_tokens_per_second.samples[0] / level.requests_per_second.samples[0]
        assert math.isclose(ratio, 5)
        assert 0 < level.first_token.p50 <= level.first_token.p90 <= level.first_token.p99
    assert all(0 <= one.python_share.median <= 1 for one in report.decode)


def test_the_report_says_who_and_where(basert: Run, store: Path, tmp_path: Path) -> None:
    """On a bundle, with a server of its own, the bundle's side is known too."""
    file = tmp_path / "bench.json"
    asked = (
        "--batch",
        "1",
        "--prompt-tokens",
        "8",
        "--concurrency",
        "",
        "--repetitions",
        "1",
        "--slots",
        "2",
    )
    done = basert("bench", "tiny", *asked, "--json", str(file))
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert (report.subject.model, report.subject.variant) == ("tiny", "fp32")
    assert report.subject.digest == digest(store / "tiny")
    assert report.machine.cpu
    assert report.machine.packages["basert"] == __version__


def test_what_does_not_fit_is_left_out_and_said(basert: Run, server: Server) -> None:
    asked = ("--batch", "1,99", "--prompt-tokens", "4,300", "--repetitions", "1", "--concurrency", "")
    done = basert("bench", "tiny", "--url", server.url, "--output-tokens", "4", *asked)
    assert done.returncode == 0, done.stderr
    assert "left out: batch 99: the server has 4 slots" in done.stdout
    assert "left out: 304 tokens of prompt and answer: the context holds 256" in done.stdout


def test_load_prompts_can_begin_alike(basert: Run, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    asked = ("--batch", "", "--repetitions", "1", "--concurrency", "2", "--load-prompt-tokens", "40")
    shared = ("--shared-prefix", "30", "--json", str(file))
    done = basert("bench", "tiny", "--url", server.url, *asked, *shared)
    assert done.returncode == 0, done.stderr
    assert "40 prompt (30 of them shared)" in done.stdout
    [level] = msgspec.json.decode(file.read_bytes(), type=Report).load
    assert (level.shared_prefix, level.requests) == (30, 4)
    wrong = basert("bench", "tiny", "--url", server.url, *asked, "--shared-prefix", "40")
    assert wrong.returncode == 2
    assert "--shared-prefix must leave tokens to differ in" in wrong.stderr


def test_it_stops_when_its_time_is_over(basert: Run, server: Server) -> None:
    asked = ("--batch", "1", "--prompt-tokens", "100", "--output-tokens", "150", "--repetitions", "1000")
    done = basert("bench", "slow", "--url", server.url, *asked, "--concurrency", "", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert "left out: what was not measured within 1 s" in done.stdout


def test_a_wrong_list_is_a_usage_error(basert: Run) -> None:
    done = basert("bench", "tiny", "--batch", "1,two")
    assert done.returncode == 2
    assert "'1,two' is no list of positive whole numbers" in done.stderr


@given(st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=1), st.floats(0, 1, allow_subnormal=False))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert math.isclose(percentile(sorted(values), share), 1e3 * np.quantile(values, share), abs_tol=1e-6)


def test_prompts_have_their_length_and_differ() -> None:
    prompts = Prompts([[1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]])
    drawn = [prompts.draw(length) for length in (1, 3, 4, 50, 50, 50)]
    assert [len(ids) for ids in drawn] == [1, 3, 4, 50, 50, 50]
    assert len({tuple(ids) for ids in drawn[3:]}) == 3


@pytest.mark.parametrize("arguments", [["--profile"], ["x", "--profile", "--url", "http://127.0.0.1:1"]])
def test_a_profile_needs_a_bundle(basert: Run, arguments: list[str]) -> None:
    done = basert("bench", *arguments)
    assert done.returncode == 2
    assert "name a bundle of this machine" in done.stderr


def test_a_profile_needs_a_decoder(basert: Run, tmp_path: Path) -> None:
    done = basert("bench", str(write_testing_speech(tmp_path)), "--profile")
    assert done.returncode == 2
    assert "tiny-speech is of the family speech; measure it without" in done.stderr


def test_a_profile_can_be_kept(basert: Run, tiny_llama: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    done = basert("bench", str(tiny_llama[0]), "--profile", "--prompt-tokens", "8", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(file.read_bytes(), type=Profile)
    assert [phase.rows for phase in found.phases] == [1, 8, 32, 1]
    assert "Decode, 32 rows, 8 tokens before" in done.stdout


@pytest.fixture
def encoder() -> Iterator[ServerProcess]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.hashing", str(port), "--metrics"]
    root = str(Path(__file__).parents[2])
    with ServerProcess(command, port=port, env={"PYTHONPATH": root}, ready_path="/v1/models") as server:
        yield server


def test_an_encoder_has_tables_of_its_own(basert: Run, encoder: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    asked = ("--inputs", "1,8,99", "--concurrency", "1,3", "--texts", "40", "--repetitions", "2")
    folders = ("--cache", str(DATA / "bench"), "--json", str(file))
    done = basert("bench", "--url", encoder.url, *asked, *folders)
    assert done.returncode == 0, done.stderr
    assert "40 texts, whose lengths are log-uniform" in done.stdout
    assert "left out: requests of 99 texts: there are 40" in done.stdout
    assert "8 x 32" in done.stdout
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert report.complete
    assert [(one.inputs, one.concurrency, one.requests) for one in report.embeddings] == [
        (1, 1, 80),
        (1, 3, 80),
        (8, 1, 10),
        (8, 3, 10),
    ]
    [bucket] = report.buckets
    assert (bucket.runs, bucket.inputs) == (3 * (40 + 40 + 5 + 5), 3 * 4 * 40)
    for one in report.embeddings:
        assert not one.errors
        assert len(one.texts_per_second.samples) == 2
        assert 0 < one.whole_request.p50 <= one.whole_request.p99


HELLO = "<|0.00|> Hello world.<|2.00|>"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A folder with two recordings of one's own."""
    folder = tmp_path / "sound"
    folder.mkdir()
    for name in NAMES[:2]:
        (folder / f"{name}.wav").write_bytes(wav(speech(name)))
        (folder / f"{name}.txt").write_text("Hello, world!")
    return folder


def test_a_speech_model_has_tables_of_its_own(basert: Run, sound: Path, tmp_path: Path) -> None:
    bundle, file = write_testing_speech(tmp_path, sentences=[HELLO]), tmp_path / "bench.json"
    asked = ("--sound", str(sound), "--sound-seconds", "20", "--concurrency", "1,3", "--requests", "1")
    done = basert("bench", str(bundle), *asked, "--repetitions", "2", "--threads", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    for text in ("2 recordings", "Transcripts: seconds of sound", "The engine meanwhile"):
        assert text in done.stdout
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert report.complete
    kinds = [(0.0, "text"), (20.0, "text"), (20.0, "segments"), (20.0, "words")]
    wanted = [(*kind, clients) for kind in kinds for clients in (1, 3)]
    assert [(one.seconds, one.asked, one.concurrency) for one in report.transcripts] == wanted
    for one in report.transcripts:
        assert not one.errors
        assert one.requests == 2 * one.concurrency * (1 if one.seconds else 2)
        assert len(one.sound_per_second.samples) == 2
        assert 0 < one.first_segment.p50 <= one.whole_request.p50
        assert one.engine is not None
        assert one.engine.windows >= one.requests  # no sound is sent twice
        assert one.engine.windows_reused == 0
        assert one.engine.steps >= 1
    assert [one.word_error_rate for one in report.transcripts[:2]] == [0, 0]


def test_what_a_speech_model_cannot_be_asked_is_said(basert: Run, sound: Path, tmp_path: Path) -> None:
    bundle = write_testing_speech(tmp_path, sentences=[HELLO], alignment_heads=0)
    asked = ("--sound", str(sound), "--sound-seconds", "10", "--concurrency", "1", "--repetitions", "1")
    done = basert("bench", str(bundle), *asked)
    assert done.returncode == 0, done.stderr
    assert "left out: words: This model tells no words' times" in done.stdout
