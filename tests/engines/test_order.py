"""Who comes first: interactive before batch, short prompts beside long ones, and nobody starves."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.batch import Batch
from engines.pace import Pace
from engines.runner import Output
from tests.engines.harness import SteppedEngine
from tests.tiny import write_testing_bundle


def test_batch_requests_are_not_starved_by_interactive_ones(bundle: Path) -> None:
    engine = SteppedEngine(bundle, slots=1, max_queue=50)
    for i in range(20):
        engine.ask([10 + i, 11], 1, ignore_eos=True)
    batch = engine.ask([50, 51, 52], 1, priority=1, ignore_eos=True)
    for i in range(20):
        engine.ask([10 + i, 11], 1, ignore_eos=True)
        engine.step(2)  # as much as one of them takes
        if engine.ending(batch):
            break
    assert engine.ending(batch) == "length"
    assert engine.stats().waiting > 10  # the others had not run out


def test_interactive_requests_come_first(bundle: Path) -> None:
    engine = SteppedEngine(bundle, slots=1, max_queue=20)
    batch = [engine.ask([50 + i, 51], 1, priority=1, ignore_eos=True) for i in range(3)]
    interactive = engine.ask([10, 11], 1, ignore_eos=True)
    while not engine.ending(interactive):
        engine.step()
    assert [engine.ending(number) for number in batch] == ["", "", ""]


def test_a_long_prompt_holds_up_neither_streams_nor_short_prompts(bundle: Path, tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, sentence="", max_context=2000, slots=4)
    engine = SteppedEngine(bundle)
    stream = engine.ask([10, 11], 500, ignore_eos=True)
    engine.step(3)
    long = engine.ask([12 + i % 50 for i in range(1500)], 1)
    engine.step()
    had = len(engine.tokens(stream))
    short = engine.ask([13, 14, 15], 1)
    engine.step(8)
    assert engine.ending(short)
    assert not engine.ending(long)
    assert len(engine.tokens(stream)) >= had + 3
    for i in range(100):
        engine.ask([20 + i % 50 for i in range(40)], 1)
        engine.step(2)
    assert engine.ending(long)  # though there always was a shorter prompt


def test_prompts_of_one_length_are_first_come_first_served(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, sentence="", max_context=1000, slots=4)
    engine = SteppedEngine(bundle)
    numbers = [engine.ask([10 + number] * 600, 1) for number in range(4)]
    ended: list[int] = []
    while engine.engine.busy:
        engine.step()
        ended += [number for number in numbers if engine.ending(number) and number not in ended]
    assert ended == numbers


def test_a_prompt_beside_streams_goes_in_chunks_as_long_as_they_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SteppedEngine(write_testing_bundle(tmp_path, max_context=200))
    for start in range(3):
        engine.ask([10 + start, 11, 12], 60, ignore_eos=True)
    engine.step(8)
    shapes: list[tuple[int, int]] = []
    run = engine.engine._runner.run

    def recorded(batch: Batch) -> Output:
        shapes.append((len(batch.rows), batch.chunk))
        return run(batch)

    monkeypatch.setattr(engine.engine._runner, "run", recorded)
    monkeypatch.setattr(Pace, "longest", lambda pace, rows, waiting: 8 if (rows, waiting) == (3, 1) else 0)
    engine.ask([13] * 40, 1)
    engine.step(10)
    assert shapes == [(1, 8), (4, 1)] * 5
