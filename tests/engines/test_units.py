"""Stretches of units: they never overlap, and begin where they keep their bits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.units import Units, covering, free_stretch

ROOM = 32


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 5)), max_size=20))
def test_stretches_that_come_and_go_never_overlap(events: list[tuple[int, int]]) -> None:
    taken: list[Units] = []
    for length, drop in events:
        if drop < len(taken):
            taken.pop(drop)
        place = free_stretch(taken, length, ROOM)
        if place is None:
            assert not any(
                all(units.end <= first or first + length <= units.first for units in taken)
                for first in range(0, ROOM - length + 1, length)
            )
            continue
        assert place.length == length
        assert place.first % length == 0
        assert place.end <= ROOM
        assert all(units.end <= place.first or place.end <= units.first for units in taken)
        taken.append(place)
    whole = covering(taken)
    for units in taken:
        assert whole.first <= units.first < units.end <= whole.end
        assert (units.first - whole.first) % units.length == 0


def test_nothing_covers_nothing() -> None:
    assert covering([]) == covering([Units()]) == Units()
    assert covering([Units(), Units(3, 4)]) == Units(3, 4)
    assert covering([Units(3, 4), Units(4, 8)]) == Units(0, 8)
