"""What the batch lane gets beside interactive sequences: a part of their time, and never nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.batch import Batch
from engines.share import PART, Share
from tests.engines.harness import SteppedEngine
from tests.tiny import write_testing_bundle

# Milliseconds of runs, and how many per cent of them were for interactive sequences.
RUNS = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 100)), max_size=60)


@given(RUNS)
def test_what_the_batch_lane_takes_was_or_will_be_earned(runs: list[tuple[int, int]]) -> None:
    """Whoever keeps to `due` takes no more than the part, and one run."""
    share, taken, own_time, longest = Share(), 0.0, 0.0, 0.0
    for milliseconds, percent in runs:
        seconds = milliseconds / 1000
        own = seconds * percent / 100 if share.due else seconds  # what rests takes nothing
        share.note(seconds, own)
        taken, own_time, longest = taken + seconds - own, own_time + own, max(longest, seconds - own)
    assert taken <= PART * own_time + longest + 1e-9


def test_credit_is_not_kept() -> None:
    share = Share()
    for _ in range(100):
        share.note(1.0, 1.0)
    share.note(1.0, 0.0)
    assert not share.due
    share.forget()
    assert share.due


def cost(batch: Batch) -> float:
    """Seconds: a step costs by its rows, a chunk by its tokens."""
    return 0.010 + 0.002 * len(batch.rows) if batch.chunk == 1 else 0.001 * batch.chunk * len(batch.rows)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SteppedEngine:
    """Whose runs take as long as `cost` says."""
    made = SteppedEngine(write_testing_bundle(tmp_path, sentence="", max_context=2000, slots=8))
    note: Callable[[Batch, float], None] = made.scheduler.note
    monkeypatch.setattr(made.scheduler, "note", lambda batch, _: note(batch, cost(batch)))
    return made


def spent(engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Grows by the cost of every run."""
    costs: list[float] = []
    run = engine.engine._runner.run

    def counted(batch: Batch) -> object:
        costs.append(cost(batch))
        return run(batch)

    monkeypatch.setattr(engine.engine._runner, "run", counted)
    return costs


def seconds_of(engine: SteppedEngine, costs: list[float]) -> float:
    """What an interactive request takes."""
    costs.clear()
    number = engine.ask([10, 11, 12], 100, ignore_eos=True)
    while not engine.ending(number):
        engine.step()
    return sum(costs)


def test_a_stream_hardly_notices_a_batch(engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = spent(engine, monkeypatch)
    alone = seconds_of(engine, costs)
    for start in range(6):
        engine.ask([20 + start, 21], 1500, priority=1, ignore_eos=True)
    engine.step(50)
    assert seconds_of(engine, costs) <= 1.2 * alone


def test_a_batch_gets_on_beside_an_endless_stream(engine: SteppedEngine) -> None:
    stream = engine.ask([10, 11, 12], 1900, ignore_eos=True)
    batch = engine.ask([20 + i % 50 for i in range(100)], 20, priority=1, ignore_eos=True)
    while not engine.ending(batch):
        assert not engine.ending(stream)
        engine.step()


def test_a_batch_alone_has_everything(engine: SteppedEngine) -> None:
    stream = engine.ask([10, 11, 12], 5, ignore_eos=True)
    batch = engine.ask([20, 21], 50, priority=1, ignore_eos=True)
    while not engine.ending(stream):
        engine.step()
    had = len(engine.tokens(batch))
    engine.step(10)
    assert len(engine.tokens(batch)) >= had + 9
