"""Prompts with a beginning in common, and who tokenises them."""

from __future__ import annotations

from basert.bench.prompts import Prompts


def test_a_shared_prefix_is_shared_once() -> None:
    prompts = Prompts([[1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]])
    first, second = prompts.draw_many(5, 40, shared=30), prompts.draw_many(5, 40, shared=30)
    for drawn in (first, second):
        assert {len(ids) for ids in drawn} == {40}
        assert len({tuple(ids[:30]) for ids in drawn}) == 1
        assert len({tuple(ids[30:34]) for ids in drawn}) > 1
    assert first[0][:30] != second[0][:30]


def test_an_encoder_of_ones_own() -> None:
    prompts = Prompts.from_encoder(lambda text: [len(word) for word in text.split()])
    assert len(prompts.draw(100)) == 100
