"""Choices: tokens in, sendable text and log-probabilities out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basert.messages import TokenLogprob, Tokens
from basert.text import TextModel
from basert.text.streaming import Choice, Piece
from tests.tiny import tiny_tokenizer

TEXT = TextModel(tiny_tokenizer())
END = TEXT.encode("<|im_end|>")[0]


def steps(text: str, finish: str, logprobs: bool) -> list[Tokens]:
    """One token a step; `stop` ends with the end-of-sequence token, as an engine does."""
    ids = TEXT.encode(text) + ([END] if finish == "stop" else [])
    return [
        Tokens(
            id=1,
            tokens=[token],
            finish=finish if n == len(ids) - 1 else "",
            logprobs=[TokenLogprob(token, -0.5)] if logprobs else [],
        )
        for n, token in enumerate(ids)
    ]


def told(choice: Choice, events: list[Tokens]) -> list[Piece]:
    pieces = []
    for event in events:
        pieces.append(choice.push(event))
        if pieces[-1].finish:
            break
    return pieces


@given(st.text(min_size=1), st.sampled_from(["stop", "length"]), st.booleans())
def test_pieces_join_to_the_text_and_their_logprobs_to_its_bytes(
    text: str, finish: str, logprobs: bool
) -> None:
    pieces = told(Choice(0, TEXT, skip_special=False), steps(text, finish, logprobs))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.finish for piece in pieces if piece.finish] == [finish]
    scored = [one for piece in pieces for one in piece.scored if not one.is_stop]
    if logprobs:
        assert b"".join(TEXT.token_bytes(one.logprob.id) for one in scored) == text.encode()


@given(st.text("ab c", min_size=1, max_size=20), st.text("ab c", min_size=1, max_size=3))
def test_a_stop_string_cuts_text_and_logprobs_alike(text: str, stop: str) -> None:
    pieces = told(Choice(0, TEXT, stops=[stop]), steps(text, "length", logprobs=True))
    sent = "".join(piece.text for piece in pieces)
    assert sent == text.partition(stop)[0]
    if stop in text:
        assert pieces[-1].finish == "stop"
    assert all(one.offset < max(len(sent), 1) for piece in pieces for one in piece.scored)


def test_the_end_token_is_no_text_but_has_a_logprob_of_its_own() -> None:
    pieces = told(Choice(0, TEXT, skip_special=False), steps("hello", "stop", logprobs=True))
    assert "".join(piece.text for piece in pieces) == "hello"
    last = pieces[-1].scored[-1]
    assert last.is_stop
    assert last.logprob.id == END


def test_a_cut_character_is_not_sent_but_its_bytes_are_scored() -> None:
    half = TEXT.encode("🌍")[:1]
    scores = [TokenLogprob(half[0], -0.5)]
    piece = Choice(0, TEXT).push(Tokens(id=1, tokens=half, finish="length", logprobs=scores))
    assert piece.text == ""
    assert [one.logprob for one in piece.scored] == scores


def test_stop_strings_do_not_count_before_min_tokens() -> None:
    events = steps("a a a a", "length", logprobs=False)
    pieces = told(Choice(0, TEXT, stops=["a"], min_tokens=4), events)
    assert "".join(piece.text for piece in pieces).startswith("a a")
    assert pieces[-1].finish == "stop"


def test_what_ended_a_text_is_told() -> None:
    stopped = told(Choice(0, TEXT, stops=["o w", "zzz"]), steps("hello world", "length", logprobs=False))
    assert (stopped[-1].finish, stopped[-1].stop) == ("stop", "o w")
    named = told(Choice(0, TEXT, stop_ids=[END]), steps("hello", "stop", logprobs=False))
    assert (named[-1].finish, named[-1].stop) == ("stop", END)
    for finish in ("stop", "length"):
        assert told(Choice(0, TEXT), steps("hello", finish, logprobs=False))[-1].stop is None
