"""The recordings that speech models are measured with: the same everywhere, and no two requests alike."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from basert.bench import recordings
from basert.bench.recordings import LOUDNESS, RATE, Recording, Recordings
from basert.errors import ConfigError
from tests.audio.recordings import silence, speech
from tests.http.hearing import wav
from tests.packages import DATA

NOISE = np.random.default_rng(1)
SOME = Recordings(
    [Recording(NOISE.integers(-9000, 9000, 800 * n).astype(np.int16), f"word {n}") for n in (1, 2, 3)], "here"
)


async def test_the_pinned_package_has_what_is_said() -> None:
    found = await recordings.load(DATA / "bench")
    assert len(found.pieces) == 5
    assert sum(len(one.words.split()) for one in found.pieces) == 71
    np.testing.assert_allclose(found.pieces[0].samples / 32768, speech(), atol=1e-4)
    assert "5 recordings" in found.about
    assert found.source.startswith("pocketsphinx==")


def test_the_same_key_draws_the_same_and_another_one_does_not() -> None:
    for seconds in (0.0, 2.0):
        one, again, other = (SOME.drawn(key, 7, seconds) for key in ("a", "a", "b"))
        assert [piece.wav for piece in one] == [piece.wav for piece in again]
        assert len({piece.wav for piece in (*one, *other)}) == 14


def test_single_ones_come_in_turn_at_their_own_loudness() -> None:
    drawn = SOME.drawn("a", 6)
    assert [one.words for one in drawn] == [f"word {n}" for n in (1, 2, 3, 1, 2, 3)]
    for number, one in enumerate(drawn):
        loud = np.abs(one.samples).mean() / np.abs(SOME.pieces[number % 3].samples).mean()
        assert LOUDNESS[0] - 0.01 <= loud <= LOUDNESS[1] + 0.01


def test_long_ones_have_all_words_between_pauses() -> None:
    for one in SOME.drawn("a", 5, 20.0):
        assert 20 <= one.seconds < 24
        words = one.words.split()
        assert words[::2] == ["word"] * (len(words) // 2)
        assert {*words[1::2]} == {"1", "2", "3"}
        blocks = np.abs(one.samples[: len(one.samples) // 80 * 80].astype(int)).reshape(-1, 80)
        said, loud = sum(0.05 * int(number) for number in words[1::2]), blocks.max(1) > 100
        assert abs(loud.sum() * 80 / RATE - said) < 0.1 * said + 0.1


def test_a_file_is_what_it_holds() -> None:
    piece = SOME.drawn("a", 1)[0]
    assert len(piece.wav) == 44 + 2 * len(piece.samples)
    assert piece.wav[44:] == piece.samples.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a"):
        (tmp_path / f"{name}.wav").write_bytes(wav(np.concatenate([silence(random.random()), speech()])))
        (tmp_path / f"{name}.txt").write_text(f"{name} is said.\n")
    return tmp_path


async def test_ones_own(folder: Path) -> None:
    found = await recordings.load(DATA / "bench", folder)
    assert [one.words for one in found.pieces] == ["a is said.", "b is said."]
    assert str(folder) in found.about
    assert all(one.seconds >= len(speech()) / RATE for one in found.pieces)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda folder: (folder / "a.txt").unlink(),
            "a.wav has no words; write what is said in it into a.txt",
        ),
        (
            lambda folder: (folder / "a.wav").write_bytes(b"no sound"),
            "a.wav cannot be used: The file could not be",
        ),
        (
            lambda folder: [file.unlink() for file in folder.iterdir()],
            "holds no recordings; put sound files there",
        ),
    ],
)
async def test_what_is_wrong_with_ones_own_is_said(folder: Path, spoil, why: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=why):
        await recordings.load(DATA / "bench", folder)


async def test_without_an_index_ones_own_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(ConfigError, match="name yours with --sound"):
        await recordings.load(tmp_path)
