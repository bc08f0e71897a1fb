"""The encoder's queue by itself: nothing lost, nothing twice, all in time, and at what cost."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.buckets import Bucket, Costs
from engines.encoder_runner import Row
from engines.lanes import TURNS
from engines.packing import Batch, Queue, Request, cut

RUN = 20.0  # what a run costs beside its tokens
LENGTHS = (8, 16, 32, 64)
BUCKETS = [Bucket(rows, tokens) for tokens in LENGTHS for rows in (1, 2, 4, 8) if rows * tokens <= 256]
COSTS = Costs({bucket: RUN + bucket.size for bucket in BUCKETS})

lengths = st.lists(st.integers(1, 64), min_size=1, max_size=40)


def request(number: int, *tokens: int, priority: int = 0) -> Request:
    rows = [Row([0] * length) for length in tokens]  # type: ignore[arg-type]
    return Request(1, number, priority, float(number), rows)


def queue(*requests: Request, costs: Costs = COSTS) -> Queue:
    filled = Queue(costs)
    for one in requests:
        filled.push(one)
    return filled


def drain(filled: Queue) -> list[Batch]:
    batches = []
    while len(filled):
        batches.append(filled.pop())
        check_batch(batches[-1])
    return batches


def check_batch(batch: Batch) -> None:
    assert batch.bucket in BUCKETS
    assert 0 < len(batch.entries) <= batch.bucket.rows
    assert max(entry.length for entry in batch.entries) <= batch.bucket.tokens
    together = [key for key, _ in itertools.groupby(entry.request for entry in batch.entries)]
    assert len(together) == len(set(together))  # a request's rows stand together


def tokens_of(batch: Batch) -> list[int]:
    return sorted(entry.length for entry in batch.entries)


def seconds(batches: list[Batch]) -> float:
    return sum(COSTS.expected(batch.bucket) for batch in batches)


@settings(deadline=None)
@given(asked=st.lists(st.tuples(lengths, st.integers(0, 1)), min_size=1, max_size=12))
def test_every_input_runs_once(asked: list[tuple[list[int], int]]) -> None:
    requests = [request(i, *tokens, priority=priority) for i, (tokens, priority) in enumerate(asked)]
    filled = queue(*requests)
    assert (len(filled), filled.tokens) == (sum(len(t) for t, _ in asked), sum(sum(t) for t, _ in asked))
    ran = Counter((entry.request.number, entry.place) for batch in drain(filled) for entry in batch.entries)
    assert ran == Counter((i, place) for i, (tokens, _) in enumerate(asked) for place in range(len(tokens)))
    assert (len(filled), filled.tokens, filled.requests) == (0, 0, 0)


@settings(deadline=None)
@given(
    asked=st.lists(st.tuples(lengths, st.integers(0, 1)), min_size=1, max_size=8),
    events=st.lists(st.one_of(st.just(-1), st.integers(0, 7)), max_size=30),
)
def test_what_was_removed_never_runs_and_the_rest_does(
    asked: list[tuple[list[int], int]], events: list[int]
) -> None:
    """events: -1 takes a batch, a number removes that request."""
    requests = [request(i, *tokens, priority=priority) for i, (tokens, priority) in enumerate(asked)]
    filled, gone, ran = queue(*requests), set[int](), Counter[tuple[int, int]]()
    for event in [*events, *[-1] * 400]:
        if event >= 0:
            if event < len(requests):
                filled.remove(requests[event])
                gone.add(event)
        elif len(filled):
            batch = filled.pop()
            check_batch(batch)
            assert not gone & {entry.request.number for entry in batch.entries}
            ran.update((entry.request.number, entry.place) for entry in batch.entries)
    assert set(ran.values()) <= {1}
    left = {
        (i, place) for i, (tokens, _) in enumerate(asked) for place in range(len(tokens)) if i not in gone
    }
    assert left <= ran.keys()
    assert (len(filled), filled.tokens, filled.requests) == (0, 0, 0)


@settings(deadline=None)
@given(
    before=st.lists(st.tuples(lengths, st.integers(0, 1)), max_size=10),
    tokens=lengths,
    priority=st.integers(0, 1),
    after=st.lists(st.tuples(lengths, st.integers(0, 1)), max_size=40),
)
def test_no_request_waits_for_more_than_its_turns(
    before: list[tuple[list[int], int]],
    tokens: list[int],
    priority: int,
    after: list[tuple[list[int], int]],
) -> None:
    """However many come after it, one with each batch: with n requests of its lane open before, each of its
    inputs has run when every one of them has had its turn, once more for each input."""
    numbers = itertools.count()
    filled = queue(*(request(next(numbers), *some, priority=lane) for some, lane in before))
    mine = request(next(numbers), *tokens, priority=priority)
    filled.push(mine)
    rivals = sum(1 for _, lane in before if lane == priority)
    coming, ran, turns = iter(after), 0, 0
    while ran < len(tokens):
        batch = filled.pop()
        ran += sum(1 for entry in batch.entries if entry.request is mine)
        turns += 1
        if late := next(coming, None):
            filled.push(request(next(numbers), *late[0], priority=late[1]))
            rivals += late[1] == priority
        # of TURNS turns the interactive lane has all but one, and the other at least one
        assert turns <= (ran + 1) * (rivals + 1) * (TURNS if priority else 2) + 1


def test_a_small_request_is_not_held_up_by_a_large_one() -> None:
    filled = queue(request(0, *[60] * 2048))
    filled.pop()
    filled.push(request(1, 5))
    ran = [{entry.request.number for entry in filled.pop().entries} for _ in range(2)]
    assert {1} <= ran[0] | ran[1]


def test_interactive_comes_before_batch_and_batch_is_not_starved() -> None:
    filled = queue(*(request(i, 64, priority=1) for i in range(4)))
    for i in range(40):
        filled.push(request(100 + i, *[64] * 4))
    first = [drain_one(filled) for _ in range(TURNS)]
    assert [0 if numbers & set(range(4)) else 1 for numbers in first] == [1] * (TURNS - 1) + [0]


def drain_one(filled: Queue) -> set[int]:
    return {entry.request.number for entry in filled.pop().entries}


def test_rows_that_nobody_needs_are_the_other_lane_s() -> None:
    costs = Costs({Bucket(4, 16): 1.0})
    filled = queue(request(0, 10), request(1, 3, 12, 16, 9, priority=1), costs=costs)
    assert tokens_of(filled.pop()) == [9, 10, 12, 16]
    assert tokens_of(filled.pop()) == [3]


def test_lengths_are_sorted_within_what_waits() -> None:
    tokens = [3, 60, 7, 58, 5, 64, 8, 61, 6, 59, 4, 62, 8, 57, 7, 63]
    batches = drain(queue(request(0, *tokens)))
    assert [tokens_of(batch) for batch in batches] == [
        [61, 62, 63, 64],
        [57, 58, 59, 60],
        [3, 4, 5, 6, 7, 7, 8, 8],
    ]


def test_a_short_input_neither_pays_for_a_long_one_nor_runs_alone_where_that_costs_more() -> None:
    apart = drain(queue(request(0, 5), request(1, 64)))
    assert [batch.bucket for batch in apart] == [Bucket(1, 8), Bucket(1, 64)]
    together = drain(queue(request(0, 5), request(1, *[8] * 7)))
    assert [batch.bucket for batch in together] == [Bucket(8, 8)]


@settings(deadline=None)
@given(tokens=lengths)
def test_no_other_way_of_cutting_costs_less(tokens: list[int]) -> None:
    """Against runs of equal size, of each size there is, of what is sorted; and against each input alone."""
    ordered = sorted(tokens, reverse=True)
    runs = cut(ordered, COSTS)
    assert [first for first, _, _ in runs] == list(
        itertools.accumulate((size for _, size, _ in runs), initial=0)
    )[:-1]
    assert sum(size for _, size, _ in runs) == len(tokens)
    least = sum(COSTS.expected(bucket) for _, _, bucket in runs)
    for size in (1, 2, 4, 8):
        some = [ordered[first : first + size] for first in range(0, len(ordered), size)]
        assert least <= sum(cheapest(len(run), run[0]) for run in some) + 1e-6


def cheapest(rows: int, length: int) -> float:
    fitting = [bucket for bucket in BUCKETS if bucket.rows >= rows and bucket.tokens >= length]
    return min((COSTS.expected(bucket) for bucket in fitting), default=float("inf"))


def test_a_large_backlog_costs_hardly_more_than_what_is_cut_at_once() -> None:
    tokens = [1 + (i * i * 31 + 7 * i) % 64 for i in range(600)]
    at_once = sum(COSTS.expected(bucket) for *_, bucket in cut(sorted(tokens, reverse=True), COSTS))
    alone = seconds(drain(queue(request(0, *tokens))))
    shared = seconds(drain(queue(*(request(i, *tokens[i::50]) for i in range(50)))))
    assert at_once <= alone <= at_once * 1.02
    assert shared <= at_once * 1.1


def test_an_empty_queue_has_nothing_next() -> None:
    with pytest.raises(IndexError):
        queue().pop()
