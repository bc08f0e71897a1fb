"""Prompts for what belongs between two texts."""

from __future__ import annotations

from basert.text import TextModel
from tests.tiny import tiny_tokenizer


def test_prefix_and_suffix_stand_around_the_hole() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"])
    model = TextModel(tokenizer)
    ids = model.infill(model.encode("hello"), "<|im_end|> world")
    assert ids is not None
    assert model.decode(ids, skip_special=False) == (
        "<|fim_prefix|>hello<|fim_suffix|><|im_end|> world<|fim_middle|>"
    )


def test_a_model_without_the_tokens_has_none() -> None:
    assert TextModel(tiny_tokenizer()).infill([5], "x") is None
