"""Requests side by side in one engine: cancelled, scored, seeded, failed, counted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from basert.messages import Sampling, Submit
from engines.sessions.testing import Script, TestingSession
from tests.engines.harness import PEER, SteppedEngine
from tests.engines.hashed import CONTEXT, SLOTS, check_scores
from tests.tiny import GRAPH, write_testing_bundle


def test_a_cancelled_request_leaves_within_one_step(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    running = [engine.ask([10 + i, 11, 12], 60, ignore_eos=True) for i in range(SLOTS)]
    waiting = engine.ask([40, 41], 2, ignore_eos=True)
    engine.step(6)
    engine.cancel(running[2])
    assert engine.stats().slots_used == SLOTS - 1
    engine.step()
    assert engine.stats().waiting == 0  # its slot is taken again
    before = len(engine.replies[PEER, running[2]])
    engine.finish()
    assert len(engine.replies[PEER, running[2]]) == before
    assert engine.ending(waiting) == "length"


def test_scoring_alone_generates_nothing(bundle: Path, model: TestingSession) -> None:
    engine = SteppedEngine(bundle)
    for length in (1, 2, 9, CONTEXT):
        prompt = [20 + i % 9 for i in range(length)]
        number = engine.ask(prompt, 0, prompt_logprobs=1)
        engine.finish()
        assert engine.tokens(number) == []
        assert engine.ending(number) == "length"
        check_scores(engine.replies[PEER, number], model, Submit(number, prompt, 0, prompt_logprobs=1))


def test_the_same_seed_gives_the_same_tokens_alone_and_among_others(bundle: Path) -> None:
    sampling = Sampling(temperature=2.0, top_p=0.95, seed=1234, presence_penalty=0.5)
    prompt = [30 + i for i in range(19)]
    alone = SteppedEngine(bundle).answer(prompt, 30, sampling, ignore_eos=True)
    engine = SteppedEngine(bundle, max_queue=40)
    others = [engine.ask([10 + i] * (3 * i + 1), 25, Sampling(seed=i), ignore_eos=True) for i in range(3)]
    engine.step(5)
    number = engine.ask(prompt, 30, sampling, ignore_eos=True)
    others += [engine.ask([90 + i] * (5 * i + 1), 9, ignore_eos=True, priority=1) for i in range(12)]
    engine.step(4)
    engine.cancel(others[0])
    engine.finish()
    assert engine.tokens(number) == alone
    assert len(set(alone)) > 5


def test_allowed_tokens_and_bad_words_hold_from_the_first_token_on(bundle: Path) -> None:
    engine, allowed = SteppedEngine(bundle), [30, 31, 32, 33]
    numbers = [
        engine.ask(
            [10 + i] * 9, 30, sampling, ignore_eos=True, allowed_ids=allowed, bad_words=[[30], [31, 31]]
        )
        for i, sampling in enumerate([Sampling(temperature=0), Sampling(seed=1), Sampling(seed=2)])
    ]
    free = engine.ask([10] * 9, 30, ignore_eos=True)
    engine.finish()
    for number in numbers:
        tokens = engine.tokens(number)
        assert set(tokens) <= {31, 32, 33}
        assert (31, 31) not in pairwise(tokens)
    assert engine.tokens(free) == SteppedEngine(bundle).answer([10] * 9, 30, ignore_eos=True)


def test_a_failed_step_ends_its_requests_only(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, slots=2)
    engine = SteppedEngine(bundle)
    fails = msgspec.json.decode((bundle / GRAPH).read_bytes(), type=Script).raise_id
    good = engine.ask([10, 11, 12], 5)
    engine.step(2)
    bad = engine.ask([10, fails, 12], 5)
    engine.finish()
    assert engine.ending(bad) == "engine_failed"
    assert engine.ending(good) == "length"
    assert engine.stats().requests_failed == 1
    assert engine.answer([10, 11], 2)


def test_a_runtime_that_stays_broken_ends_the_engine(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, slots=2, broken_for_good=True)
    engine = SteppedEngine(bundle)
    number = engine.ask([msgspec.json.decode((bundle / GRAPH).read_bytes(), type=Script).raise_id, 12], 5)
    with pytest.raises(RuntimeError, match="told to fail"):
        engine.finish()
    assert engine.ending(number) == "engine_failed"


def test_stats_add_up(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    for i in range(4):
        engine.ask([10 + i] * (10 + i), 5, ignore_eos=True)
    engine.finish()
    stats = engine.stats()
    assert (stats.requests_admitted, stats.requests_finished) == (4, 4)
    assert (stats.prompt_tokens, stats.generated_tokens) == (46, 20)
    # each answer's last token never goes through the graph
    assert stats.computed_tokens - stats.padded_tokens == 46 + 20 - 4
    assert stats.batch_size is not None
    assert stats.batch_size.counts[-1] == stats.decode_steps
    assert stats.queue_seconds is not None
    assert stats.queue_seconds.counts[-1] == 4
    assert 0 < stats.run_seconds < stats.step_seconds
    assert stats.resident_bytes > 0
