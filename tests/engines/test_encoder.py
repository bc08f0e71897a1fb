"""An encoder's engine, stepped in this process: what it refuses, answers, counts, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basert.errors import BundleError
from basert.manifest import ENCODER_GOLDEN
from basert.messages import Cancel, Encode, Submit, Vectors
from engines.encoder import EncoderEngine
from engines.loading import EngineConfig, load
from tests.engines.encoding import PEER, EncodingEngine, input_of
from tests.engines.harness import SteppedEngine
from tests.tiny import SHAPES, encoder_tokenizer, write_testing_bundle, write_testing_encoder

RAISE = encoder_tokenizer().token_to_id("RAISE")
MOST = 64  # tokens of an input


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_testing_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def engine(bundle: Path) -> Iterator[EncodingEngine]:
    with EncodingEngine(bundle) as engine:
        yield engine


def test_each_input_gets_its_own_answer_whatever_shares_its_runs(engine: EncodingEngine) -> None:
    asked = [[input_of(i, 1 + (i * 13 + k * k) % MOST) for k in range(1 + i * 3 % 40)] for i in range(25)]
    numbers = [engine.ask(inputs, priority=i % 2) for i, inputs in enumerate(asked)]
    engine.finish()
    for number, inputs in zip(numbers, asked, strict=True):
        engine.check(number, inputs)


def test_token_types_reach_the_graph(tmp_path: Path) -> None:
    with EncodingEngine(write_testing_encoder(tmp_path, token_types=True)) as engine:
        inputs, types = [input_of(1, 9), input_of(2, 9)], [[0] * 4 + [1] * 5, [0] * 9]
        typed, plain = engine.ask(inputs, token_types=types), engine.ask(inputs)
        engine.finish()
        engine.check(typed, inputs, types=types)
        engine.check(plain, inputs)


@pytest.mark.parametrize(
    ("inputs", "types", "code", "says"),
    [
        ([], [], "invalid", "no input"),
        ([[5], []], [], "invalid", "Input 1 is empty"),
        ([[5], [5, -1]], [], "invalid", "Input 1 holds token ids outside of the vocabulary of 304"),
        ([[304]], [], "invalid", "Input 0 holds token ids outside"),
        ([[5], [1 << 63]], [], "invalid", "Input 1 holds token ids outside"),
        ([[5], [5], [5] * 65], [], "context_length_exceeded", "64 tokens at most, and input 2 has 65"),
        ([[5], [5]], [[0]], "invalid", "2 inputs and token types for 1"),
        ([[5], [5, 6]], [[0], [0]], "invalid", "Input 1 has 2 tokens and 1 token types"),
        ([[5], [5]], [[0], [2]], "invalid", "Input 1 holds token types that are not below 2"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_a_sentence_and_disturbs_nothing(
    tmp_path: Path, inputs: list[list[int]], types: list[list[int]], code: str, says: str
) -> None:
    with EncodingEngine(write_testing_encoder(tmp_path, token_types=True)) as engine:
        before = engine.ask([input_of(1, 7)])
        bad = engine.ask(inputs, token_types=types)
        after = engine.ask([input_of(2, 7)])
        engine.finish()
        assert engine.failure(bad).code == code
        assert says in engine.failure(bad).message
        engine.check(before, [input_of(1, 7)])
        engine.check(after, [input_of(2, 7)])
        assert engine.stats().requests_refused == 1


def test_token_types_are_refused_where_the_graph_has_none(engine: EncodingEngine) -> None:
    number = engine.ask([[5]], token_types=[[0]])
    assert "takes no token types" in engine.failure(number).message


def test_each_family_refuses_the_other_s_requests(engine: EncodingEngine, tmp_path: Path) -> None:
    engine.engine.receive(PEER, Submit(70, [5], 3))
    assert "makes vectors" in engine.failure(70).message
    decoder = SteppedEngine(write_testing_bundle(tmp_path))
    decoder.engine.receive(PEER, Encode(7, [[5]]))
    assert "generates text" in decoder.failure(7).message


def test_an_id_that_is_running_is_refused_and_free_again_afterwards(engine: EncodingEngine) -> None:
    for _ in range(2):
        engine.engine.receive(PEER, Encode(5, [input_of(1, 20)]))
        engine.engine.receive(PEER, Encode(5, [input_of(2, 20)]))
        assert "running already" in engine.failure(5).message
        engine.replies[PEER, 5].clear()
        engine.finish()
        engine.check(5, [input_of(1, 20)])
        engine.replies[PEER, 5].clear()


def test_the_queue_is_bounded_in_requests(bundle: Path) -> None:
    with EncodingEngine(bundle, max_queue=3) as engine:
        numbers = [engine.ask([input_of(i, 9)]) for i in range(6)]
        engine.finish()
        assert [engine.failure(number).code for number in numbers[4:]] == ["queue_full"] * 2
        assert "4 requests are waiting" in engine.failure(numbers[4]).message
        for i in range(4):
            engine.check(numbers[i], [input_of(i, 9)])
        engine.check(engine_answer(engine, input_of(9, 9)), [input_of(9, 9)])


def engine_answer(engine: EncodingEngine, ids: list[int]) -> int:
    number = engine.ask([ids])
    engine.finish()
    return number


def test_the_queue_is_bounded_in_tokens_and_takes_any_request_when_it_is_empty(bundle: Path) -> None:
    with EncodingEngine(bundle, max_queue=3) as engine:
        inputs = [input_of(i, MOST) for i in range(200)]
        large, small = engine.ask(inputs), engine.ask([input_of(1, 3)])
        assert engine.failure(small).code == "queue_full"
        assert f"{200 * MOST} tokens are waiting" in engine.failure(small).message
        engine.finish()
        engine.check(large, inputs)


def test_a_cancelled_request_s_inputs_do_not_run(bundle: Path) -> None:
    with EncodingEngine(bundle) as engine:
        gone, stays = engine.ask([input_of(i, MOST) for i in range(200)]), engine.ask([input_of(7, 5)])
        engine.turn()
        engine.cancel(gone)
        heard = len(engine.replies[PEER, gone])
        engine.finish()
        assert len(engine.replies[PEER, gone]) == heard
        engine.check(stays, [input_of(7, 5)])
        stats = engine.stats()
        assert sum(bucket.inputs for bucket in stats.buckets) < 20
        assert (stats.requests_cancelled, stats.requests_finished, stats.running) == (1, 1, 0)


def test_a_failed_run_fails_its_requests_only(tmp_path: Path) -> None:
    with EncodingEngine(write_testing_encoder(tmp_path, shapes=[(1, 16), (2, 16)], max_tokens=16)) as engine:
        good = engine.ask([input_of(i, 16) for i in range(9)])
        bad = engine.ask([[20, RAISE], *[input_of(3, 2)] * 7])
        late = engine.ask([input_of(i, 16) for i in range(5)])
        engine.finish()
        assert engine.failure(bad).code == "engine_failed"
        engine.check(good, [input_of(i, 16) for i in range(9)])
        engine.check(late, [input_of(i, 16) for i in range(5)])
        stats = engine.stats()
        assert (stats.requests_failed, stats.requests_finished) == (1, 2)


def test_a_runtime_that_stays_broken_ends_the_engine(tmp_path: Path) -> None:
    with EncodingEngine(write_testing_encoder(tmp_path, broken_for_good=True)) as engine:
        bad, other = engine.ask([[20, RAISE]] * 40), engine.ask([input_of(1, MOST)])
        with pytest.raises(RuntimeError, match="told to fail"):
            engine.finish()
        assert engine.failure(bad).code == "engine_failed"
        assert len(engine.replies[PEER, other]) <= 1


def test_goldens_are_checked_again_after_a_failed_run(tmp_path: Path) -> None:
    bundle = write_testing_encoder(tmp_path)
    with EncodingEngine(bundle) as engine:
        checks: list[int] = []
        engine.engine._check = lambda: checks.append(len(engine.engine._runs))
        engine.ask([[20, RAISE]])
        engine.finish()
        assert checks == [0]  # with nothing in the graph


def test_answers_of_one_run_are_one_frame_for_each_peer(bundle: Path) -> None:
    with EncodingEngine(bundle) as engine:
        for number in range(8):
            engine.engine.receive(1 + number % 2, Encode(number, [input_of(number, 8)]))
        engine.finish()
        assert [(peer, len(messages)) for peer, messages in engine.frames] == [(1, 4), (2, 4)]


def test_a_lone_input_waits_for_company_as_long_as_it_was_asked_to(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("engines.encoder.time.monotonic", lambda: now)
    with EncodingEngine(bundle, batch_wait=0.5) as engine:
        first = engine.ask([input_of(1, 8)])
        engine.engine.step()
        assert engine.engine.patience == 0.5
        now = 100.3
        second = engine.ask([input_of(2, 8)])
        engine.engine.step()
        assert engine.engine.patience == pytest.approx(0.2)
        now = 100.5
        engine.finish()
        assert [bucket.inputs for bucket in engine.stats().buckets if bucket.runs] == [2]
        engine.check(first, [input_of(1, 8)])
        engine.check(second, [input_of(2, 8)])


def test_a_full_batch_waits_for_nobody(bundle: Path) -> None:
    with EncodingEngine(bundle, batch_wait=1000.0) as engine:
        number = engine.ask([input_of(i, 8) for i in range(8)])
        engine.finish()
        engine.check(number, [input_of(i, 8) for i in range(8)])


def test_what_has_the_engine_to_itself_runs_at_once_and_a_long_run_does_not(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the step itself; else the worker wakes the engine when it has run."""
    with EncodingEngine(bundle) as engine:
        number = engine.ask([input_of(1, 8)])
        engine.engine.step()
        engine.check(number, [input_of(1, 8)])
        monkeypatch.setattr("engines.encoder.ALONE", 0.0)
        number = engine.ask([input_of(2, 8)])
        engine.engine.step()
        assert engine.engine.busy
        assert engine.engine.patience is None
        engine.finish()
        engine.check(number, [input_of(2, 8)])


def test_stats_add_up(engine: EncodingEngine) -> None:
    asked = [[input_of(i, 1 + (i * 7 + k) % MOST) for k in range(6)] for i in range(20)]
    for inputs in asked:
        engine.ask(inputs)
    assert (engine.stats().waiting, engine.stats().running) == (20, 0)
    engine.finish()
    stats, tokens = engine.stats(), sum(len(ids) for inputs in asked for ids in inputs)
    assert (stats.requests_admitted, stats.requests_finished) == (20, 20)
    assert (stats.waiting, stats.running) == (0, 0)
    assert stats.prompt_tokens == tokens == stats.computed_tokens - stats.padded_tokens
    assert [(bucket.rows, bucket.tokens) for bucket in stats.buckets] == sorted(SHAPES)
    assert sum(bucket.inputs for bucket in stats.buckets) == 120
    assert sum(bucket.input_tokens for bucket in stats.buckets) == tokens
    assert sum(bucket.runs * bucket.rows * bucket.tokens for bucket in stats.buckets) == stats.computed_tokens
    assert stats.run_seconds == pytest.approx(sum(bucket.run_seconds for bucket in stats.buckets))
    assert stats.run_seconds <= stats.step_seconds
    assert stats.input_tokens is not None
    assert (stats.input_tokens.counts[-1], stats.input_tokens.sum) == (120, tokens)
    assert stats.queue_seconds is not None
    assert stats.queue_seconds.counts[-1] == 20
    assert stats.batch_size is not None
    assert stats.batch_size.sum == 120


requests = st.lists(st.integers(1, MOST), min_size=1, max_size=30)
actions = st.one_of(
    st.tuples(st.just("ask"), st.tuples(requests, st.integers(0, 1), st.sampled_from([1, 1, 2]))),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.just(2)),
    st.tuples(st.just("turn"), st.integers(1, 5)),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(actions, min_size=3, max_size=30))
def test_every_request_is_answered_once_or_not_at_all(
    bundle: Path, schedule: list[tuple[str, object]]
) -> None:
    with EncodingEngine(bundle) as engine:
        asked: dict[tuple[int, int], list[list[int]]] = {}
        gone: dict[tuple[int, int], int] = {}  # cancelled -> replies it had until then
        for what, how in schedule:
            if what == "ask":
                tokens, priority, peer = how  # type: ignore[misc]
                inputs = [input_of(len(asked) * 31 + i, length) for i, length in enumerate(tokens)]
                asked[peer, engine.ask(inputs, priority=priority, peer=peer)] = inputs
            elif what == "cancel" and asked:
                peer, number = list(asked)[how % len(asked)]  # type: ignore[operator]
                engine.engine.receive(peer, Cancel(number))
                gone.setdefault((peer, number), len(engine.replies[peer, number]))
            elif what == "leave":
                engine.engine.receive(2, None)
                for key in [key for key in asked if key[0] == 2]:
                    gone.setdefault(key, len(engine.replies[key]))
            elif what == "turn":
                for _ in range(how if engine.engine.busy else 0):  # type: ignore[call-overload]
                    if engine.engine.busy:
                        engine.turn()
        engine.finish()
        for (peer, number), inputs in asked.items():
            replies = engine.replies[peer, number]
            if (peer, number) not in gone or ended(replies[: gone[peer, number]]):
                engine.check(number, inputs, peer=peer)
            assert len(replies) == gone.get((peer, number), len(replies)) or ended(replies)
        stats = engine.stats()
        assert (stats.running, stats.waiting, engine.engine._queue.tokens) == (0, 0, 0)
        assert stats.requests_finished + stats.requests_cancelled == len(asked)


def ended(replies: list[object]) -> bool:
    return any(isinstance(reply, Vectors) and reply.last for reply in replies)


def test_an_encoder_loads_nothing_of_a_decoder_s_machinery(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engines.loading import *; "
        f"load(EngineConfig(Path({str(bundle)!r})), print, lambda *_: None)[0].close(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ("scheduler", "sampling", "compiling", "grammars", "prefix", "prefix_file", "slots")
    assert not set(done.stdout.split()) & {"llguidance", *(f"engines.{name}" for name in names)}
    assert "engines.packing" in done.stdout.split()


def test_a_shorter_context_needs_fewer_buckets(bundle: Path) -> None:
    with EncodingEngine(bundle, max_context=20) as engine:
        assert {bucket.tokens for bucket in engine.stats().buckets} == {8, 16, 32}
        assert engine.info.max_context == 20
        assert "20 tokens at most" in engine.failure(engine.ask([input_of(1, 21)])).message


@pytest.mark.parametrize(
    ("write", "says"),
    [
        ({"shapes": [(4, 32)]}, "no bucket for 64 tokens"),
        ({"load_error": "Out of bananas; buy some."}, "Out of bananas"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, write: dict[str, object], says: str) -> None:
    bundle = write_testing_encoder(tmp_path, **write)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=says):
        EncodingEngine(bundle)


def test_golden_cases_need_a_limit_for_the_target(tmp_path: Path) -> None:
    bundle = write_testing_encoder(tmp_path)
    golden = (bundle / ENCODER_GOLDEN).read_text()
    (bundle / ENCODER_GOLDEN).write_text(golden.replace('"testing"', '"other"'))
    with pytest.raises(BundleError, match="do not say how far 'testing' may be off"):
        EncodingEngine(bundle)


def test_loading_tells_how_far_it_is(bundle: Path) -> None:
    told: list[tuple[str, float]] = []
    engine, _ = load(EngineConfig(bundle), lambda *_: None, lambda *how: told.append(how))
    engine.close()
    assert isinstance(engine, EncoderEngine)
    assert [stage for stage, _ in told] == ["loading", *["checking"] * 4]
    assert [fraction for _, fraction in told] == sorted({fraction for _, fraction in told})
