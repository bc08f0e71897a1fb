"""Incremental decoding: any cutting gives the text that decoding everything at once gives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from basert.errors import BundleError
from basert.text import TextModel
from tests.tiny import tiny_tokenizer

TINY = tiny_tokenizer()
TEXT = TextModel(TINY)
IDS = st.lists(st.integers(0, TINY.get_vocab_size() + 5))


def sentencepiece() -> Tokenizer:
    """As Mistral's and Phi-3's are: a marker for the space, tokens for single bytes."""
    words = ["<unk>", "▁", "▁Hello", "▁world", "lo", "é", "▁▁", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def pushed(text: TextModel, ids: list[int], cuts: list[int]) -> str:
    decoder, parts = text.decoder(), []
    edges = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    for start, end in itertools.pairwise(edges):
        parts.append(decoder.push(ids[start:end]))
    return "".join([*parts, decoder.flush()])


@given(IDS, st.lists(st.integers(0, 60)))
def test_any_cutting_of_any_ids_gives_what_the_library_decodes_at_once(
    ids: list[int], cuts: list[int]
) -> None:
    assert pushed(TEXT, ids, cuts) == TINY.decode(ids)


@given(st.text())
def test_text_comes_back_token_by_token(text: str) -> None:
    ids = TEXT.encode(text)
    assert pushed(TEXT, ids, list(range(len(ids)))) == text
    assert b"".join(map(TEXT.token_bytes, ids)) == text.encode()


@given(st.text())
def test_half_a_character_is_never_sent(text: str) -> None:
    decoder = TEXT.decoder()
    sent = ""
    for token in TEXT.encode(text):
        sent += decoder.push([token])
        assert text.startswith(sent)


def test_bytes_that_are_no_text_are_flushed_as_replacement_characters() -> None:
    decoder = TEXT.decoder()
    assert decoder.push(TEXT.encode("🌍")[:1]) == ""
    assert decoder.flush() == "\ufffd"


def test_special_tokens_are_skipped_unless_wanted() -> None:
    ids = TEXT.encode("hello<|im_end|>")
    assert TEXT.decode(ids) == "hello"
    assert TEXT.decode(ids, skip_special=False) == "hello<|im_end|>"


@given(st.lists(st.integers(0, 6), max_size=8), st.lists(st.integers(0, 8)))
def test_sentencepiece_tokens_decode_as_the_library_decodes_them(ids: list[int], cuts: list[int]) -> None:
    assert pushed(TextModel(sentencepiece()), ids, cuts) == sentencepiece().decode(ids)


def test_sentencepiece_bytes_become_characters_and_a_continuation_keeps_its_space() -> None:
    tokenizer = sentencepiece()
    text = TextModel(tokenizer)
    globe = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "🌍".encode()]
    ids = [tokenizer.token_to_id("▁Hello"), *globe]
    assert text.decode(ids) == tokenizer.decode(ids) == "Hello🌍"
    assert text.decode(ids, continues=True) == " Hello🌍"
    assert text.decoder().push(ids[:3]) == "Hello"


@given(st.lists(st.integers(0, 4), max_size=8), st.lists(st.integers(0, 8)))
def test_wordpiece_tokens_decode_as_the_library_decodes_them(ids: list[int], cuts: list[int]) -> None:
    ids = [1, *ids]  # the library leaves the mark on a text's first token
    words = {word: n for n, word in enumerate(["[UNK]", "box", "##ing", "wizard", "##s"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    assert pushed(TextModel(tokenizer), ids, cuts) == tokenizer.decode(ids)


def test_a_decoder_that_cannot_be_streamed_is_refused_with_its_name() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.decoder = decoders.CTC()
    with pytest.raises(BundleError, match="'CTC'"):
        TextModel(tokenizer)
