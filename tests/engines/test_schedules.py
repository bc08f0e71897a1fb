"""Random schedules over the testing session, whose next token is a hash of what is in the cache row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basert.manifest import read_manifest
from basert.messages import Failed, Message, Sampling, Submit, Tokens
from engines.sessions import SessionOptions
from engines.sessions.testing import Script, TestingSession, logits_of
from tests.engines.harness import GREEDY, PEER, SteppedEngine
from tests.tiny import GRAPH, write_testing_bundle

CONTEXT, SLOTS, QUEUE = 77, 5, 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schedules")
    return write_testing_bundle(folder, sentence="", max_context=CONTEXT, slots=SLOTS, peak=5.0)


@pytest.fixture(scope="module")
def script(bundle: Path) -> Script:
    return msgspec.json.decode((bundle / GRAPH).read_bytes(), type=Script)


@pytest.fixture(scope="module")
def model(bundle: Path) -> TestingSession:
    return TestingSession(bundle / GRAPH, read_manifest(bundle).kv_cache, SessionOptions(1, CONTEXT))


def expected(model: TestingSession, submit: Submit, eos: int) -> tuple[list[int], str]:
    """What a greedy request must answer, computed without any engine."""
    tokens, ends = list(submit.prompt), {*submit.stop_ids} | (set() if submit.ignore_eos else {eos})
    limit = min(len(tokens) + submit.max_tokens, CONTEXT)
    while len(tokens) < limit:
        tokens.append(model.next_token(np.array(tokens)))
        if tokens[-1] in ends:
            return tokens[len(submit.prompt) :], "stop"
    return tokens[len(submit.prompt) :], "length"


submits: st.SearchStrategy[dict[str, int]] = st.builds(
    dict,
    length=st.one_of(st.integers(1, 12), st.integers(1, CONTEXT + 3)),
    max_tokens=st.integers(1, 30),
    priority=st.sampled_from([0, 0, 1]),
    peer=st.sampled_from([1, 1, 2, 3]),
    prompt_logprobs=st.sampled_from([-1, -1, -1, 0, 2]),
    ignore_eos=st.booleans(),
    salt=st.integers(0, 10_000),
)
actions = st.one_of(
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("submit"), submits),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.sampled_from([2, 3])),
    st.tuples(st.just("step"), st.integers(1, 12)),
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
) -> None:
    prompt = [(salt * 31 + i * 7) % 250 + 10 for i in range(length)]
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


def check_scores(replies: list[Message], model: TestingSession, submit: Submit) -> None:
    [scores, *later] = [reply.prompt_logprobs for reply in replies if isinstance(reply, Tokens)]
    assert not any(later)
    assert [score.id for score in scores] == submit.prompt[1:]
    for i, score in enumerate(scores):
        logits = logits_of(model.script, model.next_token(np.array(submit.prompt[: i + 1]))).astype(
            np.float64
        )
        norm = np.log(np.exp(logits).sum())
        assert score.logprob == pytest.approx(logits[score.id] - norm, abs=1e-5)
        assert [entry[1] for entry in score.top] == pytest.approx(
            sorted(logits - norm)[::-1][: submit.prompt_logprobs], abs=1e-5
        )


def check_idle(engine: SteppedEngine, asked: dict[tuple[int, int], Submit]) -> None:
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.slots_used, stats.kv_tokens) == (0, 0, 0, 0)
    assert sorted(engine.scheduler._slots._free) == list(range(SLOTS))
    assert len(engine.scheduler._prefilling) == 0
    assert stats.requests_failed == 0
    ended = stats.requests_finished + stats.requests_cancelled + stats.requests_refused
    assert ended == len(asked)


def test_a_queue_that_is_full_refuses(bundle: Path) -> None:
    engine = SteppedEngine(bundle, max_queue=2)
    numbers = [engine.ask([10, 11, 12], 3) for _ in range(SLOTS + 3)]
    assert [engine.ending(number) for number in numbers] == [""] * (SLOTS + 2) + ["queue_full"]
    engine.finish()
    assert Counter(engine.ending(number) for number in numbers)["queue_full"] == 1


def test_the_context_s_end_is_reached_and_not_passed(bundle: Path, model: TestingSession) -> None:
    engine = SteppedEngine(bundle)
    for length in (CONTEXT - 1, CONTEXT - 9, CONTEXT - 33):
        prompt = [11 + i % 7 for i in range(length)]
        number = engine.ask(prompt, 10_000, ignore_eos=True)
        engine.finish()
        answer, _ = expected(model, Submit(1, prompt, 10_000, GREEDY, ignore_eos=True), eos=2)
        assert engine.tokens(number) == answer
        assert len(answer) == CONTEXT - length
        assert engine.ending(number) == "length"


def test_a_prompt_that_leaves_no_room_names_both_numbers(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    failure = engine.failure(engine.ask([10] * CONTEXT, 1))
    assert failure.code == "context_length_exceeded"
    assert f"{CONTEXT} tokens" in failure.message
    assert f"prompt has {CONTEXT}" in failure.message


@pytest.mark.parametrize(
    ("prompt", "more", "says"),
    [
        ([], {}, "empty"),
        ([9999], {}, "vocabulary"),
        ([-1], {}, "vocabulary"),
        ([10], {"stop_ids": [9999]}, "stop_token_ids"),
        ([10], {"sampling": Sampling(logit_bias={-3: 1.0})}, "logit_bias"),
        ([10], {"sampling": Sampling(temperature=float("nan"))}, "at most 1000000"),
        ([10], {"sampling": Sampling(temperature=-1.0)}, "negative"),
        ([10], {"sampling": Sampling(repetition_penalty=0.0)}, "repetition_penalty"),
        ([10], {"sampling": Sampling(logit_bias={3: 1e30})}, "at most 1000000"),
        ([10], {"stop_ids": [5] * 257}, "256 stop_token_ids"),
        ([10], {"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    bundle: Path, prompt: list[int], more: dict[str, object], says: str
) -> None:
    engine = SteppedEngine(bundle)
    failure = engine.failure(engine.ask(prompt, **{"max_tokens": 1} | more))  # type: ignore[arg-type]
    assert failure.code == "invalid"
    assert says in failure.message
    assert failure.message.endswith(".")
    assert not engine.engine.busy


def test_an_id_that_is_in_use_is_refused_and_its_first_owner_goes_on(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    submit = Submit(7, [10, 11], 2, GREEDY, ignore_eos=True)
    engine.engine.receive(PEER, submit)
    engine.engine.receive(PEER, submit)
    engine.finish()
    [failed, *tokens] = engine.replies[PEER, 7]
    assert isinstance(failed, Failed)
    assert failed.code == "invalid"
    assert len(tokens) == 2


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
