"""Words that are wrong, as Whisper's authors count them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basert.bench.word_errors import word_error_rate

WORDS = st.lists(st.sampled_from(["harbour", "boats", "open", "tide", "green"]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("mister dashwood had been dead a year", " Mr. Dashwood had been dead, a year.", 0),
        ("the colour of two boats", "The color of 2 boats!", 0),
        ("one harbour here", "one harbor", 1 / 3),
        ("one harbour here", "one harbour was here", 1 / 3),
        ("one harbour here", "one valve here", 1 / 3),
        ("one", "", 1),
    ],
)
def test_what_counts(said: str, heard: str, rate: float) -> None:
    assert word_error_rate([said], [heard]) == pytest.approx(rate)


def test_long_texts_weigh_more() -> None:
    assert word_error_rate(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"]) == pytest.approx(0.1)


@settings(deadline=None)
@given(WORDS, st.data())
def test_every_word_that_is_missing_or_too_many_is_an_error(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    fewer = words[:place] + words[place + 1 :]
    more = [*words[:place], "umbrella", *words[place:]]
    for heard, wrong in ((words, 0), (fewer, 1), (more, 1)):
        found = word_error_rate([" ".join(words)], [" ".join(heard)])
        assert found == pytest.approx(wrong / len(words))
