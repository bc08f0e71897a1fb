"""Which bucket is the cheapest, and how costs follow what runs take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.buckets import STALE, Bucket, Costs

ONE, FOUR, LONG = Bucket(1, 8), Bucket(4, 8), Bucket(4, 32)


def buckets_of(costs: Costs, length: int) -> list[tuple[int, Bucket]]:
    return [(choice.rows, choice.bucket) for choice in costs.choices(length)]


def test_there_is_a_choice_for_each_number_of_rows_and_a_longer_bucket_serves_too() -> None:
    costs = Costs({ONE: 1.0, FOUR: 2.0, LONG: 9.0})
    assert buckets_of(costs, 3) == buckets_of(costs, 8) == [(1, ONE), (4, FOUR)]
    assert buckets_of(costs, 9) == [(4, LONG)]
    assert (costs.longest, costs.most_rows, costs.buckets) == (32, 4, [ONE, FOUR, LONG])


def test_a_larger_bucket_that_is_clearly_cheaper_is_taken_instead() -> None:
    assert buckets_of(Costs({ONE: 3.0, FOUR: 2.0}), 8) == [(1, FOUR), (4, FOUR)]
    assert buckets_of(Costs({ONE: 2.1, FOUR: 2.0}), 8) == [(1, ONE), (4, FOUR)]


def test_costs_follow_slowly_what_one_bucket_takes() -> None:
    costs = Costs({ONE: 1.0, FOUR: 2.0})
    for _ in range(4 * STALE):  # the small one has become slow, the large one has not
        costs.note(ONE, 3.0)
        costs.note(FOUR, 2.0)
    assert buckets_of(costs, 8) == [(1, FOUR), (4, FOUR)]


def test_one_run_that_was_held_up_changes_little() -> None:
    costs = Costs({ONE: 1.0, FOUR: 2.0})
    costs.note(ONE, 500.0)
    for _ in range(STALE):
        costs.note(FOUR, 2.0)
    assert costs.expected(ONE) == pytest.approx(1.0, rel=0.1)
    assert buckets_of(costs, 8) == [(1, ONE), (4, FOUR)]


def test_a_machine_that_is_slower_for_all_changes_what_is_expected_and_no_choice() -> None:
    costs = Costs({ONE: 1.0, FOUR: 2.0, LONG: 9.0})
    for _ in range(10 * STALE):
        costs.note(FOUR, 6.0)  # three times as slow; the others do not happen to run
    assert costs.expected(FOUR) == pytest.approx(6.0, rel=0.2)
    assert costs.expected(LONG) == pytest.approx(27.0, rel=0.5)
    assert buckets_of(costs, 8) == [(1, ONE), (4, FOUR)]


@settings(deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.sampled_from([ONE, FOUR, LONG]), st.floats(1e-6, 100.0, allow_subnormal=False)),
        max_size=200,
    ),
)
def test_whatever_runs_take_there_is_a_bucket_for_everything(runs: list[tuple[Bucket, float]]) -> None:
    costs = Costs({ONE: 1.0, FOUR: 2.0, LONG: 9.0})
    for bucket, seconds in runs:
        costs.note(bucket, seconds)
        assert costs.expected(bucket) > 0
    for length in range(1, 33):
        for rows, bucket in buckets_of(costs, length):
            assert bucket.rows >= rows
            assert bucket.tokens >= length
