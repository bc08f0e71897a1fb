from __future__ import annotations

import zlib

import pytest

from basert.audio.quality import (
    avg_logprob,
    compression_ratio,
    is_bad,
    is_made_up,
    is_silent,
    temperatures,
    unheard,
)
from basert.audio.words import TimedWord


def test_compression_ratio() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("é") == pytest.approx(2 / len(zlib.compress(b"\xc3\xa9")))
    assert (
        compression_ratio(" Thanks for watching." * 20) > 2.4 > compression_ratio("He was not ill disposed.")
    )


@pytest.mark.parametrize(
    ("ratio", "logprob", "no_speech", "bad", "silent"),
    [
        (1.5, -0.3, 0.1, False, False),
        (2.5, -0.3, 0.1, True, False),
        (1.5, -1.1, 0.1, True, False),
        (1.5, -1.1, 0.7, False, True),  # nobody spoke: no use in trying again
        (1.5, -0.9, 0.7, False, False),  # sure of its words
        (2.5, -0.9, 0.7, True, False),
    ],
)
def test_whispers_thresholds(ratio: float, logprob: float, no_speech: float, bad: bool, silent: bool) -> None:
    assert is_bad(ratio, logprob, no_speech) is bad
    assert is_silent(logprob, no_speech) is silent


def test_temperatures() -> None:
    assert temperatures(0) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert temperatures(0.3) == (0.3,)


def test_avg_logprob() -> None:
    assert avg_logprob([-1.0, -2.0]) == -1.5
    assert avg_logprob([]) == 0


def test_unheard() -> None:
    speech = [(1.0, 2.0), (5.0, 6.0)]
    assert unheard(2.0, 5.0, speech)
    assert unheard(6.5, 9.0, speech)
    assert not unheard(1.9, 5.0, speech)
    assert not unheard(0.0, 9.0, speech)


def word(text: str, length: float, probability: float) -> TimedWord:
    return TimedWord(text, (1,), 1.0, 1.0 + length, probability)


def test_made_up_words_sit_oddly_in_time() -> None:
    assert not is_made_up([word(" he", 0.2, 0.9), word(" was", 0.3, 0.9), word(" not", 0.5, 0.1)])
    assert is_made_up([word(" Thank", 0.0, 0.9), word(" you", 6.0, 0.1), word(".", 0.2, 0.9)])
    assert is_made_up([word(" you", 0.02, 0.1)])
    assert not is_made_up([])
    assert not is_made_up([word(".", 0.0, 0.0)])
