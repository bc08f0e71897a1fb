"""A real engine process over its sockets: answers, crashes, lost peers, drains, endings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import psutil
import pytest
from tokenizers import Tokenizer

from basert import store
from basert.manifest import GOLDEN, TOKENIZER, digest
from basert.messages import AnyMessage, Cancel, Drain, Message, StatsRequest, Submit
from engines.__main__ import serve_forever
from engines.hub import Hub
from tests.engines.harness import SteppedEngine
from tests.engines.process import engine_process
from tests.tiny import SENTENCE, write_testing_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_testing_bundle(tmp_path, slots=2)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Takes 20 ms for a step."""
    return write_testing_bundle(tmp_path, slots=2, step_seconds=0.02, max_context=4000)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tmp_path / "tiny" / TOKENIZER))


@pytest.fixture
def ids(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: list(tokenizer.encode(text).ids)


async def test_it_reports_greets_and_answers(bundle: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    async with engine_process(
        bundle, tmp_path, "--name", "mine", "--slots", "3", "--max-queue", "5"
    ) as engine:
        assert [report.stage for report in engine.reports] == ["loading", "checking", "ready"]
        info = engine.info
        assert (info.model, info.slots, info.max_context, info.max_queue) == ("mine", 3, 256, 5)
        assert (info.pid, info.digest) == (engine.process.pid, digest(bundle))
        worker = await engine.connect()
        tokens, finish = await worker.ask(1, tokenizer.encode("hello").ids, 100)
        assert (tokenizer.decode(tokens), finish) == (SENTENCE, "stop")
        stats = await worker.stats()
        assert (stats.requests_finished, stats.running) == (1, 0)


async def test_a_crash_hangs_up_and_shows_in_the_status(
    bundle: Path, tmp_path: Path, ids: Callable[[str], list[int]]
) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        assert await worker.ask(1, ids("CRASH"), 9) == ([], "lost")
        assert await engine.end() == -signal.SIGKILL


async def test_a_failed_step_leaves_the_engine_serving(
    bundle: Path, tmp_path: Path, ids: Callable[[str], list[int]]
) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        assert (await worker.ask(1, ids("RAISE"), 9))[1] == "engine_failed"
        assert (await worker.ask(2, ids("hello"), 3))[1] == "length"


async def test_a_broken_runtime_ends_it_with_status_1(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, broken_for_good=True)
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        fails = Tokenizer.from_file(str(bundle / TOKENIZER)).encode("RAISE").ids
        assert (await worker.ask(1, fails, 9))[1] == "engine_failed"
        assert await engine.end() == 1


async def test_a_lost_peer_s_requests_are_cancelled(
    slow: Path, tmp_path: Path, ids: Callable[[str], list[int]]
) -> None:
    async with engine_process(slow, tmp_path) as engine:
        leaving, staying = await engine.connect(), await engine.connect()
        for number in range(5):
            leaving.submit(number, ids("hello"), 3000, ignore_eos=True)
        await leaving.next()
        leaving.connection.close()
        assert (await staying.ask(1, ids("hello"), 2))[1] == "length"
        stats = await staying.stats()
        assert (stats.running, stats.waiting, stats.requests_cancelled) == (0, 0, 5)


async def test_a_cancelled_request_is_silent_from_then_on(
    slow: Path, tmp_path: Path, ids: Callable[[str], list[int]]
) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.submit(1, ids("hello"), 3000, ignore_eos=True)
        await worker.next()
        worker.connection.send(Cancel(1))
        assert (await worker.stats()).running == 0
        worker.submit(2, ids("hello"), 3)
        assert [getattr(await worker.next(), "id", 0) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT ignored, then Drain"])
async def test_drained_it_finishes_refuses_and_exits_0(
    slow: Path, tmp_path: Path, ids: Callable[[str], list[int]], how: str
) -> None:
    async with engine_process(slow, tmp_path) as engine:
        worker = await engine.connect()
        worker.submit(1, ids("hello"), 3000, ignore_eos=True)  # runs for as long as this takes
        worker.submit(2, ids("hello"), 20, ignore_eos=True)
        worker.submit(3, ids("hello"), 5, ignore_eos=True)
        await worker.stats()  # with this, all of them have come
        if how == "SIGTERM":
            engine.process.send_signal(signal.SIGTERM)
        else:
            engine.process.send_signal(signal.SIGINT)
            engine.tell(Drain())
        late = await engine.connect()
        while (ending := (await late.ask(9, ids("hello"), 1))[1]) == "length":  # until it has heard of it
            pass
        assert ending == "draining"
        assert (await worker.until_end(3))[1] == "length"
        worker.connection.send(Cancel(1))
        assert await engine.end() == 0
        assert not (tmp_path / "engine").exists()


class ScriptedHub(Hub):
    """Notes for how long it is asked to wait, and hands over one message at a time."""

    def __init__(self, *script: Message) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self._script = list(script)

    def poll(self, timeout: float | None) -> list[tuple[int, AnyMessage | None]]:
        self.waits.append(timeout)
        if timeout == 0 or not self._script:
            return []
        return [(1, cast(AnyMessage, self._script.pop(0)))]


def test_it_waits_for_ever_when_idle_and_not_at_all_when_busy(bundle: Path) -> None:
    engine = SteppedEngine(bundle).engine
    hub = ScriptedHub(Submit(1, [10], 3, ignore_eos=True), StatsRequest(), Drain())
    assert serve_forever(engine, hub, control=9) == 0
    assert hub.waits == [None, 0, 0, None, None]
    hub.close()


async def test_idle_it_ends_at_once(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        engine.process.terminate()
        assert await engine.end() == 0


async def test_without_its_supervisor_it_ends(bundle: Path, tmp_path: Path) -> None:
    async with engine_process(bundle, tmp_path) as engine:
        assert engine.control is not None
        engine.control.close()
        assert await engine.end() == 1


def test_it_dies_with_the_process_that_started_it(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engines", "--bundle", str(bundle), "--socket", str(tmp_path / "engine")]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            f"engine = subprocess.Popen({command!r}, stderr=subprocess.PIPE, text=True)\n"
            "next(line for line in engine.stderr if 'ready after' in line)\n"
            "print(engine.pid, flush=True)\n"
            "engine.wait()",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    engine = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    engine.wait(60)
    assert not engine.is_running()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--provider", "tpu"], "no graph for 'tpu', only for testing"),
        (["--max-context", "257"], "exported for 256 tokens of context, not 257"),
        (["--slots", "-1"], "at least 1 slot"),
    ],
)
async def test_what_cannot_be_loaded_is_reported_in_a_sentence(
    bundle: Path, tmp_path: Path, flags: list[str], says: str
) -> None:
    async with engine_process(bundle, tmp_path, *flags) as engine:
        assert engine.reports[-1].stage == "failed"
        assert says in engine.reports[-1].reason
        assert await engine.end() == 1


async def test_a_bundle_that_drifted_is_refused(bundle: Path, tmp_path: Path) -> None:
    golden = (bundle / GOLDEN).read_text()
    (bundle / GOLDEN).write_text(golden.replace("30.0", "29.0"))
    async with engine_process(bundle, tmp_path) as engine:
        assert "drifted" in engine.reports[-1].reason
        assert "golden case 0" in engine.reports[-1].reason
        assert await engine.end() == 1


async def test_it_holds_its_bundle_while_it_loads_too(bundle: Path, tmp_path: Path) -> None:
    """Loading waits for the writer of a pipe in the place of one of the bundle's files."""
    golden, pipe = (bundle / GOLDEN).read_bytes(), bundle / GOLDEN
    pipe.unlink()
    os.mkfifo(pipe)

    def look_and_go_on() -> bool:
        with pipe.open("wb") as writer:  # waits until the engine reads
            held = store.in_use(bundle)
            writer.write(golden)
        return held

    held = asyncio.create_task(asyncio.to_thread(look_and_go_on))
    async with engine_process(bundle, tmp_path) as engine:
        assert engine.reports[-1].stage == "ready"
        assert await held


async def test_a_session_that_will_not_open_is_reported(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, load_error="Out of bananas; buy some.")
    async with engine_process(bundle, tmp_path) as engine:
        assert engine.reports[-1].reason == "Out of bananas; buy some."


async def test_no_bundle_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engines", "--bundle", str(tmp_path), "--socket", str(tmp_path / "s")),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "is no bundle" in errors.decode()
    assert "Traceback" not in errors.decode()
