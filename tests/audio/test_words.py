from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

from basert.audio.words import timed

PIECES = [
    "a",
    " b",
    "ce",
    " ",
    ".",
    ",",
    " (",
    ")",
    ' "',
    '"',
    " -",
    "?",
    "。",
    "好",
    "é",
    " ¿",
    "'s",
    "...",
    " 1",
]


class Pieces:
    """A tokenizer whose tokens are the pieces, and behind them the single bytes."""

    eos_token_id = 10_000

    def decode(self, tokens: Sequence[int], **_: object) -> str:
        return b"".join(self.bytes(one) for one in tokens).decode(errors="replace")

    def bytes(self, token: int) -> bytes:
        return PIECES[token].encode() if token < len(PIECES) else bytes([token - len(PIECES)])


def of_bytes(character: str) -> list[int]:
    return [len(PIECES) + one for one in character.encode()]


PIECE = st.integers(0, len(PIECES) - 1).map(lambda one: [one])
WHOLE = st.lists(st.one_of(PIECE, st.sampled_from("aé好🙂 .").map(of_bytes)), min_size=1, max_size=9)
TOKENS = st.lists(st.integers(0, len(PIECES) + 255), min_size=1, max_size=12)  # half characters, too


def words(tokens: Sequence[int], language: str = "en", starts: Sequence[float] | None = None):
    times = starts or [0.3 * at for at in range(len(tokens) + 1)]
    return timed(tokens, times, [0.5] * len(tokens), Pieces().decode, language)


@given(
    WHOLE.map(lambda units: [token for unit in units for token in unit]),
    st.sampled_from([("en", "english"), ("zh", "chinese"), ("my", "myanmar")]),
)
def test_words_are_those_of_transformers(tokens: list[int], language: tuple[str, str]) -> None:
    texts, parts, _ = _combine_tokens_into_words(Pieces(), tokens, language[1])
    found = words(tokens, language[0])
    assert [list(one.tokens) for one in found] == parts
    assert [one.text for one in found] == texts


@given(TOKENS)
def test_no_token_is_lost_and_times_rise(tokens: list[int]) -> None:
    found = words(tokens)
    assert [token for one in found for token in one.tokens] == tokens
    assert all(one.start <= one.end for one in found)


def ids(*pieces: str) -> list[int]:
    return [PIECES.index(one) for one in pieces]


def test_times_and_probabilities_of_a_word_are_those_of_its_tokens() -> None:
    found = timed(ids("a", "ce", " b"), [0.0, 0.2, 0.5, 0.9], [0.4, 0.8, 1.0], Pieces().decode, "en")
    assert [(one.text, one.start, one.end) for one in found] == [("ace", 0.0, 0.5), (" b", 0.5, 0.9)]
    assert [one.probability for one in found] == pytest.approx([0.6, 1.0])


def test_punctuation_takes_no_time() -> None:
    found = words(ids("a", " (", " b", ")", "."), starts=[0.0, 0.3, 0.3, 0.6, 0.6, 0.6])
    assert [(one.text, one.start, one.end) for one in found] == [("a", 0.0, 0.3), (" ( b).", 0.3, 0.6)]


def test_a_pause_does_not_belong_to_the_word_behind_it() -> None:
    found = words(ids("a", ".", " b", " 1"), starts=[0.0, 0.3, 0.4, 5.0, 5.3])
    assert [one.text for one in found] == ["a.", " b", " 1"]
    assert found[1].end == 5.0
    assert found[1].start > 4.0


def test_languages_without_spaces() -> None:
    assert [one.text for one in words(ids("好", "好", "。"), "zh")] == ["好", "好。"]
    assert [one.text for one in words(ids("好", "好", "。"), "en")] == ["好好。"]
