"""The texts that encoders are measured with: the same everywhere, real, and of all lengths alike."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basert.bench import sentences
from tests.packages import DATA

DIGEST = "ff8df8858608bed9217ca218a0b913d3439be4302fb601f15dae67aee0a7850e"


def test_the_pinned_package_gives_the_same_texts_as_ever() -> None:
    found = sentences.load(DATA / "bench")
    assert found.source == "bfcl-eval==2026.3.23 (Apache-2.0)"
    assert len(found.texts) == 2000
    assert found.digest == DIGEST
    assert "2,000 texts" in found.about


def test_without_an_index_python_says_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INDEX": "1", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_NO_{name}" if name == "INDEX" else f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    found = sentences.load(tmp_path, 300)
    assert "Python's documentation" in found.source
    assert len(found.texts) == 300
    assert all(text.isascii() and text.strip() == text for text in found.texts)


MESSAGES = st.lists(
    st.lists(st.sampled_from(["a", "house,", "isn't", "(and)", "x_y", "café", "w" * 40]), max_size=30).map(
        " ".join
    ),
    max_size=30,
)


@settings(deadline=None)
@given(MESSAGES, st.integers(1, 30))
def test_lengths_are_spread_and_words_are_whole(messages: list[str], count: int) -> None:
    messages = [*messages, "There is always this one."]
    texts = sentences.cut(messages, count)
    assert len(texts) == count
    assert texts == sentences.cut(messages, count)
    words = {word for message in messages for word in message.split()}
    assert all(set(text.split()) <= words for text in texts)
    low, high = sentences.LENGTHS
    sizes = sorted(sentences._size(text) for text in texts)
    for place, size in enumerate(sizes):
        wanted = low * math.exp((place + 0.5) / count * math.log(high / low))
        assert wanted - 1 < size < wanted + 4  # up to the end of a word of marks


def test_requests_have_all_their_texts() -> None:
    some = sentences.Sentences(["one", "twenty", "three", "a", "five"], "here")
    assert [body["input"] for body in some.bodies("m", 2)] == [["one", "twenty"], ["three", "a"]]
    assert [*some.shortest(2).texts] == ["a", "one"]
