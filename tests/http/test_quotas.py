"""Token buckets that several processes share."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.http import quotas
from basert.http.quotas import Quotas

SPAWN = multiprocessing.get_context("spawn")


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def buckets(tmp_path: Path, clock: Clock) -> Iterator[Quotas]:
    made = Quotas(tmp_path / "quotas", clock)
    yield made
    made.close()


def test_a_minute_s_worth_at_once_and_then_what_flows_back(buckets: Quotas, clock: Clock) -> None:
    assert [buckets.take("a", 1, 3).taken for _ in range(4)] == [True, True, True, False]
    refused = buckets.take("a", 1, 3)
    assert (refused.left, refused.wait, refused.reset) == (0, 20, 60)
    clock.now += 19.999
    assert not buckets.take("a", 1, 3).taken
    clock.now += 0.001
    assert buckets.take("a", 1, 3).taken
    clock.now += 3600
    assert buckets.take("a", 0, 3).left == 3
    assert buckets.take("b", 3, 3).taken


def test_what_is_given_back_or_taken_beyond(buckets: Quotas, clock: Clock) -> None:
    assert buckets.take("a", 100, 100).taken
    buckets.take("a", -40, 100, anyway=True)
    assert buckets.take("a", 0, 100).left == 40
    buckets.take("a", -1000, 100, anyway=True)
    assert buckets.take("a", 0, 100).left == 100
    buckets.take("a", 250, 100, anyway=True)
    level = buckets.take("a", 10, 100)
    assert (level.taken, level.left, level.wait, level.reset) == (False, -150, 96, 150)


def test_a_limit_that_is_lowered_or_raised_counts_at_once(buckets: Quotas) -> None:
    buckets.take("a", 50, 60)
    assert buckets.take("a", 0, 20).left == -30
    assert buckets.take("a", 100, 200).taken


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 30)), max_size=60), st.integers(1, 100))
def test_never_more_than_a_bucket_and_what_flowed_back(steps: list[tuple[int, float]], limit: int) -> None:
    clock = Clock()
    buckets, began, taken = Quotas(None, clock), clock.now, 0
    for amount, pause in steps:
        clock.now += pause
        level = buckets.take("a", amount, limit)
        assert level.taken == (level.wait == 0)
        taken += amount * level.taken
        assert taken <= limit + (clock.now - began) * limit / 60 + 1e-6
        if not level.taken and amount <= limit:
            clock.now += level.wait + 1e-6
            assert buckets.take("a", amount, limit).taken  # what it was told to wait for
            taken += amount
    buckets.close()


def test_more_names_than_entries_cost_the_freest(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "SETS", 1)
    buckets = Quotas(tmp_path / "one", clock)
    for name in range(quotas.WAYS):
        assert buckets.take(str(name), 10 + name, 100).taken
    assert buckets.take("new", 50, 100).left == 50
    assert buckets.take("0", 0, 100).left == 100  # it had the least to lose
    assert [buckets.take(str(name), 0, 100).left for name in range(1, quotas.WAYS)] == [
        90 - name for name in range(1, quotas.WAYS)
    ]
    clock.now += 60
    for name in range(quotas.WAYS):  # those are full again, and say nothing
        assert buckets.take(f"later {name}", 99, 100).taken
    assert all(buckets.take(f"later {name}", 0, 100).left == 1 for name in range(quotas.WAYS))
    buckets.close()


def hammer(path: Path, limit: int, go: object, found: object) -> None:
    """Take until it is refused; all processes have the same time, which stands still."""
    buckets = Quotas(path, lambda: 1e6)
    go.wait()  # type: ignore[attr-defined]
    taken = 0
    while buckets.take("everybody's", 1, limit).taken:
        taken += 1
    found.put(taken)  # type: ignore[attr-defined]


def test_several_processes_take_exactly_what_there_is(tmp_path: Path) -> None:
    limit, go, found = 4000, SPAWN.Barrier(4), SPAWN.Queue()
    processes = [SPAWN.Process(target=hammer, args=(tmp_path / "quotas", limit, go, found)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sum(found.get(timeout=60) for _ in processes) == limit
    for process in processes:
        process.join()
        assert process.exitcode == 0


def hold(path: Path, held: object) -> None:
    """Die with a lock in hand."""
    buckets = Quotas(path, lambda: 1e6)
    buckets.take("mine", 7, 10)
    for number in range(quotas.SETS):
        buckets._locked(number).__enter__()
    held.set()  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_leaves_its_buckets_and_no_lock(tmp_path: Path, clock: Clock) -> None:
    held = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tmp_path / "quotas", held))
    process.start()
    assert held.wait(60)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    buckets = Quotas(tmp_path / "quotas", clock)
    assert buckets.take("mine", 3, 10).taken
    assert not buckets.take("mine", 1, 10).taken
    buckets.close()
