"""Any text and any pair, cut to any length: special tokens stay, and the right tokens between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basert.text import TextModel
from basert.text.cutting import Cut
from tests.tiny import encoder_tokenizer

TEXT = TextModel(encoder_tokenizer())
CLS, SEP = TEXT.encode("")
WORDS = st.text(st.sampled_from("abcé🌍 h"), max_size=20)
CUTS = st.builds(Cut, st.integers(0, 30), st.booleans())


def kept(ids: list[int], most: int, cut: Cut) -> list[int]:
    return ids[max(0, len(ids) - most) :] if cut.from_start else ids[:most]


@given(st.lists(WORDS, min_size=1, max_size=5), CUTS, st.booleans())
def test_texts(texts: list[str], cut: Cut, add_special: bool) -> None:
    made = TEXT.encode_batch(texts, cut, add_special=add_special)
    bare = [TEXT.encode(text, add_special=False) for text in texts]
    room = max(0, cut.most - 2) if add_special else cut.most
    inner = [kept(ids, room, cut) for ids in bare]
    assert made.ids == [[CLS, *ids, SEP] if add_special else ids for ids in inner]
    assert made.types == [[0] * len(ids) for ids in made.ids]
    assert made.cut == sum(len(ids) + 2 * add_special > cut.most for ids in bare)
    assert made.tokens == sum(map(len, made.ids))


@given(WORDS, WORDS, CUTS)
def test_of_a_pair_the_second_is_cut_first(one: str, other: str, cut: Cut) -> None:
    made = TEXT.encode_batch([(one, other)], cut)
    first, second = (TEXT.encode(text, add_special=False) for text in (one, other))
    room = max(0, cut.most - 3)
    second = kept(second, max(0, room - len(first)), cut)
    first = kept(first, room - len(second), cut)
    assert made.ids == [[CLS, *first, SEP, *second, SEP]]
    assert made.types == [[0] * (len(first) + 2) + [1] * (len(second) + 1)]


@given(st.lists(st.tuples(WORDS, WORDS) | WORDS, min_size=1))
def test_without_a_cut_inputs_are_as_the_tokenizer_makes_them(texts: list[str | tuple[str, str]]) -> None:
    tokenizer = encoder_tokenizer()
    made = TEXT.encode_batch(texts)
    wanted = [
        tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text) for text in texts
    ]
    assert made.ids == [one.ids for one in wanted]
    assert made.types == [one.type_ids for one in wanted]
    assert made.cut == 0
