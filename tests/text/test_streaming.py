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


def cut(events: list[Tokens], sizes: list[int]) -> list[Tokens]:
    """The same steps, several at once."""
    merged: list[Tokens] = []
    while events:
        count = sizes[len(merged) % len(sizes)]
        now, events = events[:count], events[count:]
        tokens = [token for one in now for token in one.tokens]
        logprobs = [logprob for one in now for logprob in one.logprobs]
        merged.append(Tokens(id=1, tokens=tokens, finish=now[-1].finish, logprobs=logprobs))
    return merged


def whole(pieces: list[Piece]) -> tuple[object, ...]:
    text = "".join(piece.text for piece in pieces)
    return text, pieces[-1].finish, pieces[-1].stop, [one for piece in pieces for one in piece.scored]


ALPHABET = st.text("ab ü🌍", max_size=20)


@given(
    ALPHABET,
    st.sampled_from(["stop", "length"]),
    st.booleans(),
    st.lists(st.text("ab ü🌍", min_size=1, max_size=3), max_size=3),
    st.integers(0, 12),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_any_cutting_of_the_tokens_says_the_same(
    text: str,
    finish: str,
    logprobs: bool,
    stops: list[str],
    min_tokens: int,
    include_stop: bool,
    sizes: list[int],
) -> None:
    events = steps(text + "b", finish, logprobs)

    def choice() -> Choice:
        return Choice(0, TEXT, stops=stops, stop_ids=[END], include_stop=include_stop, min_tokens=min_tokens)

    assert whole(told(choice(), cut(events, sizes))) == whole(told(choice(), events))


@given(ALPHABET, st.lists(st.text("ab ü🌍", min_size=1, max_size=3), min_size=1, max_size=3), st.booleans())
def test_a_stop_string_is_cut_or_kept_whole(text: str, stops: list[str], include_stop: bool) -> None:
    pieces = told(Choice(0, TEXT, stops=stops, include_stop=include_stop), steps(text + "b", "length", True))
    said, finish, stop, scored = whole(pieces)
    assert isinstance(said, str)
    assert isinstance(scored, list)
    if stop is None:
        assert (said, finish) == (text + "b", "length")
        assert b"".join(TEXT.token_bytes(one.logprob.id) for one in scored) == said.encode()
    else:
        assert (text + "b").startswith(said if include_stop else said + str(stop))
        assert said.endswith(str(stop)) or not include_stop
        assert not any(other in said.removesuffix(str(stop)) for other in stops)
        assert [one.offset for one in scored] == sorted(one.offset for one in scored)
        assert all(one.offset < len(said) for one in scored)


def test_an_end_that_stays_is_said_unless_it_is_special() -> None:
    events = steps("hello", "stop", logprobs=True)
    for skip, said in ((True, "hello"), (False, "hello<|im_end|>")):
        text, finish, stop, scored = whole(
            told(Choice(0, TEXT, include_stop=True, skip_special=skip), events)
        )
        assert (text, finish, stop) == (said, "stop", None)
        assert scored[-1].is_stop == skip  # type: ignore[index]


def test_what_ended_a_text_is_told() -> None:
    stopped = told(Choice(0, TEXT, stops=["o w", "zzz"]), steps("hello world", "length", logprobs=False))
    assert (stopped[-1].finish, stopped[-1].stop) == ("stop", "o w")
    named = told(Choice(0, TEXT, stop_ids=[END]), steps("hello", "stop", logprobs=False))
    assert (named[-1].finish, named[-1].stop) == ("stop", END)
    for finish in ("stop", "length"):
        assert told(Choice(0, TEXT), steps("hello", finish, logprobs=False))[-1].stop is None
