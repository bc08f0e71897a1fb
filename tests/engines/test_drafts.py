"""Drafts by prompt lookup: what they propose, and how their length follows what came of them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from engines.drafts import LOOKUPS, PAUSE, SIZES, Drafter


def test_nothing_is_drafted_from_nothing() -> None:
    assert Drafter().draft([], 8) == []
    assert Drafter().draft([1], 8) == []
    assert Drafter().draft([1, 2, 3, 4, 5], 8) == []


def test_what_followed_last_time_is_proposed_again() -> None:
    assert Drafter().draft([1, 2, 3, 4, 9, 1, 2], 8) == [3, 4, 9]
    assert Drafter().draft([1, 2, 3, 4, 9, 1, 8, 3], 8) == [4]


def test_the_longest_match_wins_over_the_latest() -> None:
    tokens = [5, 1, 2, 7, 7, 7, 6, 1, 2, 8, 8, 8, 5, 1, 2]
    assert Drafter().draft(tokens, 1) == [7]
    assert Drafter().draft([0, *tokens[7:12], 9, 1, 2], 1) == [8]


def test_a_loop_goes_round_and_round() -> None:
    drafter = Drafter()
    for size in SIZES[1:]:
        draft = drafter.draft([4, 7, 8, 7, 8], 16)
        assert draft == ([7, 8] * 8)[:size]
        drafter.learn(len(draft), len(draft))


def test_no_more_is_proposed_than_asked_for() -> None:
    assert Drafter().draft([1, 2, 3, 4, 1, 2], 2) == [3, 4]
    assert Drafter().draft([1, 2, 3, 4, 1, 2], 0) == []


def test_after_a_match_as_long_the_next_draft_follows_what_came_of_this_one() -> None:
    drafter, tokens = Drafter(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 1, 2]
    sizes = []
    for accepted in (1.0, 1.0, 1.0, 0.6, 0.4, 0.4, 0.4, 0.4):
        sizes.append(len(drafter.draft(tokens, 15)))
        drafter.learn(sizes[-1], int(accepted * sizes[-1]))
    assert sizes == [3, 7, 15, 15, 15, 7, 3, 1]
    assert len(drafter.draft([*tokens, 99, 17], 15)) == SIZES[0]  # one token only


def test_where_nothing_is_ever_accepted_it_rests() -> None:
    drafter, tokens = Drafter(), [1, 2, 3, 1, 2]
    drafts = 0
    for _ in range(20 + 10 * PAUSE):
        if draft := drafter.draft(tokens, 15):
            drafts += 1
            drafter.learn(len(draft), 0)
    assert 10 <= drafts <= 40
    while not (draft := drafter.draft(tokens, 15)):
        pass
    drafter.learn(len(draft), len(draft))
    assert drafter.draft(tokens, 15), "one that was accepted wakes it"


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 15))
def test_every_draft_has_been_said_before(tokens: list[int], most: int) -> None:
    drafter = Drafter()
    for length in range(len(tokens) + 1):
        draft = drafter.draft(tokens[:length], most)
        assert len(draft) <= most
        if draft:
            said = tokens[:length]
            assert (said[-1], draft[0]) in set(itertools.pairwise(said))
            assert any(
                said[at : at + n] == said[-n:] and said[at + n] == draft[0]
                for n in LOOKUPS
                for at in range(length - n)
            )
