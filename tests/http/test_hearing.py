"""Clips that run side by side are handed on in their order, however their passages come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basert.audio.windows import Window
from basert.resources.hearing import Numbered, _Ordered, _speech_after
from basert.resources.passages import Passage


@given(lengths=st.lists(st.integers(0, 4), max_size=6), data=st.data())
def test_passages_come_in_order(lengths: list[int], data: st.DataObject) -> None:
    """Each clip has so many passages, and then its end; `until` numbers them all."""
    firsts = [sum(lengths[:n]) for n in range(len(lengths))]
    left: list[list[Numbered]] = [
        [*((n, Passage(float(first + i))) for i in range(length)), (n, None)]
        for n, (first, length) in enumerate(zip(firsts, lengths, strict=True))
    ]
    ordered, told = _Ordered(), list[float]()
    while waiting := [clip for clip in left if clip]:
        batch = [data.draw(st.sampled_from(waiting)).pop(0)]
        told += [passage.until for passage in ordered.add(batch)]
        first_open = next((n for n, clip in enumerate(left) if clip), len(left))
        known = [float(n) for n in range(sum(lengths[:first_open]))]
        assert told[: len(known)] == known  # nothing that could be handed on was held back
    assert told == [float(n) for n in range(sum(lengths))]


def test_speech_that_is_left() -> None:
    clip = Window(1.0, 9.0, ((1.0, 3.0), (5.0, 9.0)))
    assert [_speech_after(start, clip) for start in (1.0, 2.0, 4.0, 8.5, 9.0)] == [6.0, 5.0, 4.0, 0.5, 0.0]
