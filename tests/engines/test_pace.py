"""A chunk's length while streams run, from what runs took."""

from __future__ import annotations

from engines.pace import STALL, Pace

CHUNKS = [32, 64, 128, 512]


def test_it_allows_the_longest_before_anything_is_known() -> None:
    assert Pace(CHUNKS).longest(8) == 512


def test_before_a_chunk_has_run_its_shortest_is_taken_for_a_step() -> None:
    pace = Pace(CHUNKS)
    pace.note(8, 1, 0.010)
    assert pace.longest(8) == max(chunk for chunk in CHUNKS if chunk <= 2 * CHUNKS[0])


def test_a_chunk_takes_no_more_than_its_share_of_a_step() -> None:
    pace = Pace(CHUNKS)
    pace.note(8, 1, 0.015)
    for chunk in CHUNKS:
        pace.note(1, chunk, chunk * 0.00035 + 0.008)
    assert pace.longest(8) == 32
    for _ in range(40):
        pace.note(8, 1, 0.030)  # their contexts have grown
    assert pace.longest(8) == 128
    assert STALL * 0.030 >= 0.00035 * 128 + 0.008


def test_shapes_that_have_not_run_are_judged_by_their_neighbours() -> None:
    pace = Pace(CHUNKS)
    pace.note(16, 1, 0.020)
    pace.note(1, 128, 0.050)
    assert pace.longest(4) == pace.longest(32) == 64  # 25 ms within 40, 50 not


def test_the_shortest_is_always_allowed() -> None:
    pace = Pace(CHUNKS)
    pace.note(1, 1, 0.001)
    pace.note(1, 32, 1.0)
    assert pace.longest(4) == 32


def test_chunks_are_longer_where_many_prompts_wait_beside_few_streams() -> None:
    pace = Pace(CHUNKS)
    pace.note(8, 1, 0.016)
    for chunk in CHUNKS:
        pace.note(1, chunk, chunk * 0.00035 + 0.008)
    assert [pace.longest(8, waiting) for waiting in (1, 2, 4, 7)] == [64, 64, 128, 128]
    assert pace.longest(2, 1) == 128
