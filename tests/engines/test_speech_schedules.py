"""Random schedules of a speech model's engine: every request is answered as if it were alone, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basert.messages import Sound, Submit
from engines.sessions.testing import heard_of
from tests.engines.harness import GREEDY, SteppedEngine
from tests.engines.spoken import Spoken
from tests.tiny_speech import window, write_testing_speech

SLOTS, QUEUE, CONTEXT, MELS = 5, 6, 77, 1
WINDOWS = [window(number, MELS) for number in range(5)]  # the first is silence

submits: st.SearchStrategy[dict[str, int]] = st.builds(
    dict,
    length=st.one_of(st.integers(1, 5), st.integers(1, CONTEXT + 2)),
    sot=st.integers(0, CONTEXT),
    number=st.integers(0, len(WINDOWS) - 1),
    max_tokens=st.one_of(st.just(1), st.integers(1, 30)),
    timestamps=st.booleans(),
    alignment=st.booleans(),
    peer=st.sampled_from([1, 1, 2, 3]),
    priority=st.sampled_from([0, 0, 1]),
)
actions = st.one_of(
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.sampled_from([2, 3])),
    st.tuples(st.just("step"), st.integers(1, 12)),
    st.tuples(st.just("step"), st.integers(1, 40)),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    return write_testing_speech(
        folder, sentences=(), mels=MELS, max_context=CONTEXT, slots=SLOTS, peak=9.0, alignment_heads=1
    )


@pytest.fixture(scope="module")
def spoken(bundle: Path) -> Spoken:
    return Spoken(bundle)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(actions, min_size=5, max_size=40))
def test_every_request_is_answered_as_if_it_were_alone(
    bundle: Path, spoken: Spoken, schedule: list[tuple[str, object]]
) -> None:
    engine = SteppedEngine(bundle, max_queue=QUEUE)
    asked: dict[tuple[int, int], Submit] = {}
    gone: set[tuple[int, int]] = set()
    for what, how in schedule:
        if what == "submit":
            assert isinstance(how, dict)
            ask(engine, spoken, asked, **how)
        elif what == "step":
            assert isinstance(how, int)
            engine.step(how)
            check_heard(engine)
        elif what == "cancel" and asked:
            assert isinstance(how, int)
            peer, number = list(asked)[how % len(asked)]
            engine.cancel(number, peer)
            gone.add((peer, number))
        elif what == "leave":
            assert isinstance(how, int)
            engine.engine.receive(how, None)
            gone |= {key for key in asked if key[0] == how}
    engine.finish()
    check_heard(engine)
    for key, submit in asked.items():
        check(engine, spoken, key, submit, cancelled=key in gone)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_tokens, stats.requests_failed) == (0, 0, 0, 0)
    assert stats.windows_heard + stats.windows_reused <= stats.requests_admitted
    assert engine.engine._runner._hearing.listener._session.runs == stats.windows_heard


def ask(
    engine: SteppedEngine,
    spoken: Spoken,
    asked: dict[tuple[int, int], Submit],
    *,
    length: int,
    sot: int,
    number: int,
    max_tokens: int,
    timestamps: bool,
    alignment: bool,
    peer: int,
    priority: int,
) -> None:
    """sot: where in the prompt it is; beyond its end: nowhere."""
    prompt = [20 + (7 * i + number) % 200 for i in range(length)]
    if sot < length:
        prompt[sot] = spoken.speech.sot
    sound = Sound(WINDOWS[number], timestamps, alignment)
    submit = Submit(len(asked) + 1, prompt, max_tokens, GREEDY, priority=priority, sound=sound)
    asked[peer, submit.id] = submit
    engine.engine.receive(peer, submit)


def check(
    engine: SteppedEngine, spoken: Spoken, key: tuple[int, int], submit: Submit, *, cancelled: bool
) -> None:
    peer, number = key
    ending, tokens = engine.ending(number, peer), engine.tokens(number, peer)
    if ending in ("queue_full", "context_length_exceeded"):
        assert not tokens
        return
    answer, finish = spoken.answer(submit)
    if ending or not cancelled:
        assert (tokens, ending) == (answer, finish)
    assert tokens == answer[: len(tokens)]
    if tokens:
        spoken.check_told(engine.replies[peer, number], submit)


def check_heard(engine: SteppedEngine) -> None:
    """What rows are said to have heard is in them."""
    runner, slots = engine.engine._runner, engine.scheduler._slots
    for move in engine.scheduler._moves:  # booked, and done before the next batch
        if move.heard:
            return
    for row, heard in enumerate(slots.heard._sounds):
        if heard is not None:
            for cross in runner._hearing.listener.rows(row, 1).values():
                np.testing.assert_array_equal(cross, np.float32(heard_of(heard)))
