"""Random schedules: every request gets its own answer, once, whatever else runs."""

from __future__ import annotations

from array import array
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basert.messages import Submit
from engines.sessions.testing import TestingSession
from tests.engines.harness import GREEDY, SteppedEngine
from tests.engines.hashed import CONTEXT, SLOTS, check_scores, expected

QUEUE = 6

submits: st.SearchStrategy[dict[str, int]] = st.builds(
    dict,
    length=st.one_of(st.integers(1, 12), st.integers(1, CONTEXT + 3)),
    max_tokens=st.integers(1, 30),
    priority=st.sampled_from([0, 0, 1]),
    peer=st.sampled_from([1, 1, 2, 3]),
    prompt_logprobs=st.sampled_from([-1, -1, -1, 0, 2]),
    ignore_eos=st.booleans(),
    salt=st.one_of(st.integers(0, 2), st.integers(0, 10_000)),
    family=st.sampled_from([0, 0, 1]),
    shared=st.one_of(st.just(0), st.integers(1, CONTEXT)),
)
actions = st.one_of(
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.sampled_from([2, 3])),
    st.tuples(st.just("step"), st.integers(1, 12)),
    st.tuples(st.just("step"), st.integers(1, 40)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(actions, min_size=5, max_size=40))
def test_every_request_gets_its_own_answer_once(
    bundle: Path, model: TestingSession, schedule: list[tuple[str, object]]
) -> None:
    engine = SteppedEngine(bundle, max_queue=QUEUE)
    asked: dict[tuple[int, int], Submit] = {}
    gone: dict[tuple[int, int], int] = {}  # cancelled -> replies it had until then
    for what, how in schedule:
        if what == "submit":
            assert isinstance(how, dict)
            ask(engine, asked, **how)
        elif what == "cancel" and asked:
            assert isinstance(how, int)
            key = list(asked)[how % len(asked)]
            engine.cancel(key[1], key[0])
            gone.setdefault(key, len(engine.replies[key]))
        elif what == "leave":
            assert isinstance(how, int)
            engine.engine.receive(how, None)
            for key in [key for key in asked if key[0] == how]:
                gone.setdefault(key, len(engine.replies[key]))
        elif what == "step":
            assert isinstance(how, int)
            engine.step(how)
            check_held(engine)
        stats = engine.stats()
        assert stats.waiting <= QUEUE + SLOTS - stats.slots_used
        assert stats.running == stats.slots_used <= SLOTS
    engine.finish()
    for key, submit in asked.items():
        check(engine, model, key, submit, gone)
    check_idle(engine, asked)


def ask(
    engine: SteppedEngine,
    asked: dict[tuple[int, int], Submit],
    *,
    length: int,
    max_tokens: int,
    priority: int,
    peer: int,
    prompt_logprobs: int,
    ignore_eos: bool,
    salt: int,
    family: int,
    shared: int,
) -> None:
    """The first `shared` tokens of the prompt are those of its family."""
    prompt = [((family if i < shared else salt) * 31 + i * 7) % 250 + 10 for i in range(length)]
    submit = Submit(
        len(asked) + 1,
        prompt,
        max_tokens,
        GREEDY,
        priority=priority,
        prompt_logprobs=prompt_logprobs,
        ignore_eos=ignore_eos,
    )
    asked[peer, submit.id] = submit
    engine.engine.receive(peer, submit)


def check(
    engine: SteppedEngine,
    model: TestingSession,
    key: tuple[int, int],
    submit: Submit,
    gone: dict[tuple[int, int], int],
) -> None:
    """A request ended once, as it should; a cancelled one got nothing after that, nothing wrong before."""
    peer, number = key
    ending, tokens = engine.ending(number, peer), engine.tokens(number, peer)
    if ending in ("queue_full", "context_length_exceeded"):
        assert not tokens
        assert (ending == "context_length_exceeded") == (len(submit.prompt) >= CONTEXT)
        return
    answer, finish = expected(model, submit, eos=2)
    if key in gone:
        assert len(engine.replies[key]) == gone[key]
        assert tokens == answer[: len(tokens)]
    else:
        assert (tokens, ending) == (answer, finish)
    if submit.prompt_logprobs >= 0 and tokens:
        check_scores(engine.replies[key], model, submit)


def check_held(engine: SteppedEngine) -> None:
    """What rows are said to hold is in them, as chunks left it; a first token may lie aside."""
    for row, held in enumerate(engine.scheduler._slots.prefixes.held):
        if held is not None and held.length:
            ids = engine.session.cache[row, : held.length].copy()
            if held.torn:
                ids[0] = engine.engine._runner._aside[row]["0.key"][0, 0, 0]
            assert ids.tolist() == array("i", held.ids).tolist()[: held.length]


def check_idle(engine: SteppedEngine, asked: dict[tuple[int, int], Submit]) -> None:
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.slots_used, stats.kv_tokens) == (0, 0, 0, 0)
    assert engine.scheduler._slots.owners == [None] * SLOTS
    assert len(engine.scheduler._prompts) == 0
    assert stats.requests_failed == 0
    ended = stats.requests_finished + stats.requests_cancelled + stats.requests_refused
    assert ended == len(asked)
