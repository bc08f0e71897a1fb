"""`basert transcribe` on files and in pipes: every form, several files, what goes where."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import BASERT, Run
from tests.http.hearing import long, short
from tests.serving import Server
from tests.tiny_speech import write_testing_speech

SENTENCE = "<|0.00|> Hello world.<|2.00|>"


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_testing_speech(tmp_path_factory.mktemp("speech"), sentences=[SENTENCE])


@pytest.fixture(scope="module")
def url(ears: Path) -> Iterator[str]:
    with Server([ears]) as running:
        yield running.url


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    made = [folder / "one.wav", folder / "two.wav"]
    for file, data in zip(made, (short(), long(2)), strict=True):
        file.write_bytes(data)
    return made


def test_text_and_nothing_else_is_on_stdout(basert: Run, url: str, files: list[Path]) -> None:
    done = basert("transcribe", "tiny-speech", str(files[0]), "--url", url)
    assert (done.returncode, done.stdout) == (0, "Hello world.\n")
    assert "one.wav" in done.stderr


def test_several_files_one_after_another(basert: Run, url: str, files: list[Path]) -> None:
    done = basert("transcribe", "tiny-speech", *map(str, files), "--url", url, "--sequential")
    assert done.stdout == "Hello world.\nHello world. Hello world.\n"


@pytest.mark.parametrize(
    ("form", "ending", "start"),
    [("srt", "srt", "1\n00:00:0"), ("vtt", "vtt", "WEBVTT\n\n"), ("text", "txt", "H")],
)
def test_files_for_files(
    basert: Run, url: str, files: list[Path], tmp_path: Path, form: str, ending: str, start: str
) -> None:
    flags = ("--url", url, "--format", form, "--output-dir", str(tmp_path))
    done = basert("transcribe", "tiny-speech", *map(str, files), *flags)
    assert (done.returncode, done.stdout) == (0, "")
    texts = [(tmp_path / f"{name}.{ending}").read_text() for name in ("one", "two")]
    assert [text.count("Hello world.") for text in texts] == [1, 2]
    assert all(text.startswith(start) for text in texts)


def test_json_is_a_line_for_each_file(basert: Run, url: str, files: list[Path]) -> None:
    flags = ("--url", url, "--format", "verbose_json", "--words", "--language", "german")
    done = basert("transcribe", "tiny-speech", *map(str, files), *flags)
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["text"], first["language"]) == ("Hello world.", "german")
    assert [one["word"] for one in second["words"]] == ["Hello", "world."] * 2
    assert len(second["segments"]) == 2
    done = basert("transcribe", "tiny-speech", str(files[0]), "--url", url, "--format", "json")
    assert json.loads(done.stdout)["text"] == "Hello world."


def test_a_pipe(environment: dict[str, str], url: str) -> None:
    command = [*BASERT, "transcribe", "tiny-speech", "-", "--url", url, "--translate"]
    done = subprocess.run(command, input=short(), env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"Hello world.\n")


def test_a_file_that_is_no_sound_does_not_stop_the_others(
    basert: Run, url: str, files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no sound")
    done = basert("transcribe", "tiny-speech", str(broken), str(files[0]), "--url", url)
    assert (done.returncode, done.stdout) == (1, "Hello world.\n")
    assert "broken.mp3: The file could not be decoded as sound" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("tiny-speech",), 2, "Missing argument 'FILES...'"),
        (("tiny-speech", "nowhere.wav"), 1, "nowhere.wav cannot be read: No such file or directory."),
        (("tiny-speech", "-", "--words"), 2, "--words needs --format verbose_json"),
        (("nothing", "-"), 1, "nothing"),
    ],
)
def test_a_mistake_is_one_sentence(
    basert: Run, url: str, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = basert("transcribe", *arguments, "--url", url)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_a_bundle_by_itself(basert: Run, ears: Path, files: list[Path]) -> None:
    done = basert("transcribe", str(ears), str(files[0]))
    assert (done.returncode, done.stdout) == (0, "Hello world.\n")
    assert "loading tiny-speech" in done.stderr
