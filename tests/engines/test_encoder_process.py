"""A real engine process with an encoder: answers, crashes, lost peers, drains, endings."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from basert.manifest import ENCODER_GOLDEN, digest, write_json
from basert.messages import AnyMessage, Cancel, Drain, Encode, Message
from engines.__main__ import parse, serve_forever
from engines.golden import read_encoder_golden
from engines.hub import Hub
from engines.loading import EngineConfig, load
from engines.sessions.testing import values_of
from tests.engines.encoding import by_input, encode, input_of, script_of, until_answered
from tests.engines.process import engine_process
from tests.tiny import encoder_tokenizer, write_testing_encoder

MOST = 64
CRASH, RAISE = (encoder_tokenizer().token_to_id(word) for word in ("CRASH", "RAISE"))
LONG = [input_of(i, MOST) for i in range(250)]  # 125 runs


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_testing_encoder(tmp_path)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Takes 20 ms for a run."""
    return write_testing_encoder(tmp_path, step_seconds=0.02)


async def test_it_reports_greets_and_answers(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path, "--name", "mine", "--max-queue", "5") as engine:
        stages = [report.stage for report in engine.reports]
        assert (stages[0], set(stages[1:-1]), stages[-1]) == ("loading", {"checking"}, "ready")
        info = engine.info
        assert (info.model, info.slots, info.max_context, info.max_queue) == ("mine", 1, MOST, 5)
        assert (info.pid, info.digest) == (engine.process.pid, digest(bundle))
        worker, script = await engine.connect(), script_of(bundle)
        inputs = [input_of(i, 1 + i % MOST) for i in range(70)]
        answers, code = await encode(worker, 1, inputs)
        assert code == ""
        for index, values in by_input(answers, script.width).items():
            assert np.array_equal(values, values_of(script, inputs[index]))
        stats = await worker.stats()
        assert (stats.requests_finished, stats.running) == (1, 0)


async def test_a_crash_hangs_up_and_shows_in_the_status(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        assert await encode(worker, 1, [[20, CRASH]]) == ([], "lost")
        assert await engine.end() == -signal.SIGKILL


async def test_a_failed_run_leaves_the_engine_serving(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        assert (await encode(worker, 1, [[20, RAISE]]))[1] == "engine_failed"
        assert (await encode(worker, 2, [input_of(1, 5)]))[1] == ""


async def test_a_broken_runtime_ends_it_with_status_1(tmp_path: Path) -> None:
    async with engine_process(write_testing_encoder(tmp_path, broken_for_good=True), tmp_path) as engine:
        worker = await engine.connect()
        assert (await encode(worker, 1, [[20, RAISE]] * 30))[1] == "engine_failed"
        assert await engine.end() == 1


async def test_a_lost_peer_s_requests_are_cancelled(slow: Path, tmp_path: Path) -> None:
    async with engine_process(slow, tmp_path) as engine:
        leaving, staying = await engine.connect(), await engine.connect()
        for number in range(3):
            leaving.connection.send(Encode(number, LONG[:80]))
        await leaving.next()
        leaving.connection.close()
        assert (await encode(staying, 1, [input_of(1, 5)]))[1] == ""
        stats = await staying.stats()
        assert (stats.running, stats.waiting, stats.requests_cancelled) == (0, 0, 3)
        assert sum(bucket.inputs for bucket in stats.buckets) < 80


async def test_a_cancelled_request_is_silent_from_then_on(slow: Path, tmp_path: Path) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.connection.send(Encode(1, LONG))
        await worker.next()
        worker.connection.send(Cancel(1))
        assert (await worker.stats()).running == 0
        worker.connection.send(Encode(2, LONG[:9]))
        came = [await worker.next()]
        while not getattr(came[-1], "last", False):
            came.append(await worker.next())
        assert {getattr(message, "id", 0) for message in came} == {2}


async def test_while_it_runs_it_hears_and_answers(tmp_path: Path) -> None:
    """A run takes half a second; what is asked meanwhile is answered before it is over."""
    bundle = write_testing_encoder(tmp_path, step_seconds=0.5, shapes=[(1, 64)])
    async with engine_process(bundle, tmp_path, "--max-queue", "1") as engine:
        worker = await engine.connect()
        worker.connection.send(Encode(1, [input_of(1, 5)] * 2))
        while (stats := await worker.stats()).running == 0:
            pass
        assert (stats.running, sum(bucket.runs for bucket in stats.buckets)) == (1, 0)
        for number in (2, 3):
            worker.connection.send(Encode(number, [input_of(1, 5)]))
        assert await until_answered(worker, 2) == ([], "queue_full")
        assert sum(bucket.runs for bucket in (await worker.stats()).buckets) <= 1


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT ignored, then Drain"])
async def test_drained_it_finishes_refuses_and_exits_0(slow: Path, tmp_path: Path, how: str) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        for number, inputs in enumerate((LONG, LONG[:5], LONG[:2])):
            worker.connection.send(Encode(number, inputs))
        await worker.stats()  # with this, all of them have come
        if how == "SIGTERM":
            engine.process.send_signal(signal.SIGTERM)
        else:
            engine.process.send_signal(signal.SIGINT)
            engine.tell(Drain())
        late = await engine.connect()
        while (ending := (await encode(late, 9, [input_of(1, 3)]))[1]) == "":  # until it has heard of it
            pass
        assert ending == "draining"
        worker.connection.send(Cancel(0))
        assert await engine.end() == 0
        assert not (tmp_path / "engine").exists()


async def test_requests_that_were_there_before_a_drain_are_answered(slow: Path, tmp_path: Path) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.connection.send(Encode(1, LONG[:30]))
        await worker.stats()
        engine.tell(Drain())
        answers, code = await until_answered(worker, 1)
        assert (len(by_input(answers, 8)), code) == (30, "")
        assert await engine.end() == 0


async def test_without_its_supervisor_it_ends_in_the_middle_of_a_run(slow: Path, tmp_path: Path) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.connection.send(Encode(1, LONG))
        await worker.next()
        assert engine.control is not None
        engine.control.close()
        assert await engine.end() == 1


async def test_it_dies_at_once_when_it_is_killed(slow: Path, tmp_path: Path) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.connection.send(Encode(1, LONG))
        await worker.next()
        engine.process.kill()
        assert (await until_answered(worker, 1))[1] == "lost"
        assert await engine.end() == -signal.SIGKILL


class NotingHub(Hub):
    """Notes for how long it is asked to wait, and hands over one message each time that nothing runs."""

    def __init__(self, *script: Message) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self._script = list(script)

    def poll(self, timeout: float | None) -> list[tuple[int, AnyMessage | None]]:
        self.waits.append(timeout)
        if self.waits.count(None) % 2:  # idle: the next message, else the worker's call
            return [(1, cast(AnyMessage, self._script.pop(0)))]
        return super().poll(timeout)


def test_it_never_polls_in_vain(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle it waits for ever; and for ever while a run goes on that nothing is to be packed behind."""
    monkeypatch.setattr("engines.encoder.ALONE", 0.0)
    hub = NotingHub(Encode(1, [[20]]), Encode(2, [[20]]), Drain())
    engine, _ = load(EngineConfig(bundle), hub.send, lambda *_: None, hub.wake)
    assert serve_forever(engine, hub, control=9) == 0
    engine.close()
    hub.close()
    assert hub.waits == [None] * 5


async def test_idle_it_ends_at_once(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        assert (await encode(worker, 1, [input_of(1, 5)]))[1] == ""
        engine.process.terminate()
        assert await engine.end() == 0


async def test_a_bundle_that_drifted_is_refused(bundle: Path, tmp_path: Path) -> None:
    golden = read_encoder_golden(bundle)
    golden.cases[0].values[3] += 1e-3
    write_json(bundle / ENCODER_GOLDEN, golden)
    async with engine_process(bundle, tmp_path) as engine:
        assert "drifted: golden case 0" in engine.reports[-1].reason
        assert await engine.end() == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--provider", "tpu"], "no graph for 'tpu', only for testing"),
        (["--max-context", "65"], "exported for 64 tokens of context, not 65"),
    ],
)
async def test_what_cannot_be_loaded_is_reported_in_a_sentence(
    bundle: Path, tmp_path: Path, flags: list[str], says: str
) -> None:
    async with engine_process(bundle, tmp_path, *flags) as engine:
        assert engine.reports[-1].stage == "failed"
        assert says in engine.reports[-1].reason
        assert await engine.end() == 1


@pytest.mark.parametrize("value", ["-1", "inf", "soon"])
def test_a_batch_wait_is_a_time(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--bundle", "b", "--socket", "s", "--batch-wait"]
    with pytest.raises(SystemExit):
        parse([*flags, value])
    assert "argument --batch-wait" in capsys.readouterr().err
    assert parse([*flags, "2.5"]).batch_wait == 2.5
