"""A real engine process of a speech model: windows over its sockets, crashes, lost peers, drains."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from basert.messages import Drain, Sound
from engines.sessions.testing import heard_of
from tests.engines.process import engine_process
from tests.tiny_speech import SPOKEN, speech_tokenizer, window, write_testing_speech

TOKENIZER = speech_tokenizer()
PROMPT = TOKENIZER.encode("<|startoftranscript|><|en|><|transcribe|>").ids


def hear(number: int) -> dict[str, Any]:
    return {"sound": Sound(window(number))}


def said(number: int) -> list[int]:
    """What the bundle's script answers to a window."""
    text = SPOKEN[heard_of(window(number)) % len(SPOKEN)]
    return list(TOKENIZER.encode(text + "<|endoftext|>").ids)


def after(word: str) -> list[int]:
    """The prompt of a window before which a word was said."""
    return [*TOKENIZER.encode(f"<|startofprev|> {word}").ids, *PROMPT]


async def test_windows_of_many_peers_are_heard_side_by_side(tmp_path: Path) -> None:
    async with engine_process(write_testing_speech(tmp_path), tmp_path) as engine:
        assert engine.info.provider == "TestingExecutionProvider"
        workers = [await engine.connect() for _ in range(6)]
        answers = [worker.ask(1, PROMPT, 60, **hear(number)) for number, worker in enumerate(workers)]
        assert await asyncio.gather(*answers) == [(said(number), "stop") for number in range(6)]
        stats = await workers[0].stats()
        assert (stats.requests_finished, stats.windows_heard, stats.windows_reused) == (6, 6, 0)


@pytest.mark.parametrize("listening", [False, True])
async def test_a_failed_run_leaves_the_engine_serving(tmp_path: Path, listening: bool) -> None:
    bundle = write_testing_speech(tmp_path, deaf_to=heard_of(window(2)) if listening else -1)
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        prompt = PROMPT if listening else after("RAISE")
        assert (await worker.ask(1, prompt, 60, **hear(2)))[1] == "engine_failed"
        assert await worker.ask(2, PROMPT, 60, **hear(1)) == (said(1), "stop")


@pytest.mark.parametrize("listening", [False, True])
async def test_a_runtime_that_is_broken_ends_the_engine(tmp_path: Path, listening: bool) -> None:
    """What its golden cases hear and say shows it."""
    deaf_to = heard_of(window(2)) if listening else -1
    bundle = write_testing_speech(tmp_path, deaf_to=deaf_to, broken_for_good=True)
    async with engine_process(bundle, tmp_path) as engine:
        worker = await engine.connect()
        prompt = PROMPT if listening else after("RAISE")
        assert (await worker.ask(1, prompt, 60, **hear(2)))[1] == "engine_failed"
        assert await engine.end() == 1


async def test_a_crash_hangs_up(tmp_path: Path) -> None:
    async with engine_process(write_testing_speech(tmp_path), tmp_path) as engine:
        worker = await engine.connect()
        assert await worker.ask(1, after("CRASH"), 9, **hear(1)) == ([], "lost")
        assert await engine.end() == -signal.SIGKILL


async def test_a_lost_peer_frees_its_slots(tmp_path: Path) -> None:
    bundle = write_testing_speech(tmp_path, slots=2, step_seconds=0.02, listen_seconds=0.02)
    async with engine_process(bundle, tmp_path) as engine:
        leaving, staying = await engine.connect(), await engine.connect()
        for number in range(1, 4):
            leaving.submit(number, PROMPT, 400, min_tokens=400, **hear(number))
        await leaving.next()
        leaving.connection.close()
        assert await staying.ask(1, PROMPT, 60, **hear(4)) == (said(4), "stop")
        stats = await staying.stats()
        assert (stats.running, stats.waiting, stats.requests_cancelled) == (0, 0, 3)


async def test_what_is_here_is_finished_while_it_drains(tmp_path: Path) -> None:
    bundle = write_testing_speech(tmp_path, slots=1, step_seconds=0.02, listen_seconds=0.02)
    async with engine_process(bundle, tmp_path, "--max-queue", "1") as engine:
        worker, other = await engine.connect(), await engine.connect()
        worker.submit(1, PROMPT, 60, **hear(1))
        await worker.next()  # it runs
        worker.submit(2, PROMPT, 60, **hear(2))
        await worker.stats()  # with this, it waits
        assert (await other.ask(1, PROMPT, 60, **hear(3)))[1] == "queue_full"
        engine.tell(Drain())
        rest, finish = await worker.until_end(1)
        assert (said(1)[-len(rest) :], "stop") == (rest, finish)
        assert await worker.until_end(2) == (said(2), "stop")
        assert await engine.end() == 0
