"""Batches of a server whose processes are killed, or drained; and of two servers over one PostgreSQL.

BASERT_KILLS says how many kills the first test is to survive, and BASERT_KILLS_SEED which.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from openai import AsyncOpenAI

from basert.config import AppConfig
from basert.jobs.office import open_office
from basert.jobs.records import ACTIVE
from basert.schema.batches import BatchObject
from tests.jobs.making import CHAT, Json, jsonl, line, output
from tests.postgres import Postgres
from tests.processes.live import all_gone, arbiter_of, engine_of
from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle

KILLS = int(os.environ.get("BASERT_KILLS", "15"))
SEED = int(os.environ.get("BASERT_KILLS_SEED", "1"))
QUICK = ("--restart-limit", "10000", "--restart-backoff", "0.01", "--restart-backoff-max", "0.05")


def chat(custom_id: str, text: str = "hello", **more: Any) -> Json:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0}
    return line(custom_id, body={**body, "max_tokens": 4, **more})


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A step takes 5 ms: a hundred lines, half a second."""
    return write_testing_bundle(tmp_path, slots=8, step_seconds=0.005)


def flags(folder: Path, run_dir: Path, *more: str) -> list[str]:
    return ["--files-dir", str(folder / "files"), "--run-dir", str(run_dir), *QUICK, *more]


def jobs_of(server: Server) -> psutil.Process:
    (jobs,) = [child for child in psutil.Process(server.pid).children() if "basert.jobs" in child.cmdline()]
    return jobs


class Records:
    """What the database says, whether or not a server runs."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self._office = open_office(AppConfig(database_url=url), folder / "files")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._office.database.close()

    def batch(self, name: str) -> BatchObject:
        return self._office.batches.get(name, "")

    def output(self, batch: BatchObject) -> tuple[list[Json], list[Json]]:
        return output(self._office, batch)

    async def until(self, name: str, what: Callable[[BatchObject], bool]) -> BatchObject:
        while not what(batch := self.batch(name)):
            assert batch.status in ACTIVE, batch
            await asyncio.sleep(0.01)
        return batch

    async def done(self, name: str) -> BatchObject:
        return await self.until(name, lambda batch: batch.status not in ACTIVE)


def progress(batch: BatchObject) -> int:
    return batch.request_counts.completed + batch.request_counts.failed


async def begun(server: Server, lines: Sequence[Json]) -> str:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=10) as client:
        file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    return batch.id


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """Of a server without a --database-url."""
    with Records(tmp_path) as records:
        yield records


class Killed:
    """A server that is started again when it is killed whole."""

    def __init__(self, bundles: Sequence[Path], options: Sequence[str]) -> None:
        self._start = lambda: Server(bundles, options)
        self.server = self._start()
        self.server.wait_ready()

    def kill(self, whom: str) -> None:
        if whom == "supervisor":
            processes = self.server.processes()
            self.server.stop(signal.SIGKILL)
            assert all_gone(processes)
            self.server = self._start()
            self.server.wait_ready()
            return
        find = {"jobs": jobs_of, "engine": engine_of, "arbiter": arbiter_of}[whom]
        while True:
            try:
                find(self.server).kill()
                return
            except (ValueError, psutil.NoSuchProcess):
                pass  # it has just been killed, and is about to come back


@pytest.mark.parametrize(("database", "kills"), [("sqlite", KILLS), ("postgresql", KILLS // 2)])
async def test_every_line_is_answered_once_whatever_is_killed(
    slow: Path, tmp_path: Path, run_dir: Path, request: pytest.FixtureRequest, database: str, kills: int
) -> None:
    chance = random.Random(SEED)
    lines = [chat(f"line {number}") for number in range(30 * kills)]
    victims = [
        chance.choice(["jobs", "jobs", "engine", "engine", "arbiter", "supervisor"]) for _ in range(kills)
    ]
    when = sorted(chance.randrange(len(lines) + 1) for _ in victims)
    url = None if database == "sqlite" else request.getfixturevalue("postgres").database()
    killed = Killed([slow], flags(tmp_path, run_dir, *(("--database-url", url) if url else ())))
    records = Records(tmp_path, url)
    try:
        name = await begun(killed.server, lines)
        for victim, reached in zip(victims, when, strict=True):
            await records.until(name, lambda batch, least=reached: progress(batch) >= least)  # type: ignore[misc]
            killed.kill(victim)
        batch = await records.done(name)
    finally:
        assert killed.server.stop() == 0
    assert batch.status == "completed"
    right, wrong = records.output(batch)
    records.close()
    assert [one["custom_id"] for one in right] == [one["custom_id"] for one in lines]
    assert wrong == []
    (text,) = {one["response"]["body"]["choices"][0]["message"]["content"] for one in right}
    assert SENTENCE.startswith(text.rstrip("\ufffd"))
    assert batch.usage.output_tokens == 4 * len(lines)
    left = {path.name for path in (tmp_path / "files" / "contents").iterdir() if path.name[0] != "."}
    assert {batch.input_file_id, batch.output_file_id} <= left


async def test_a_line_that_kills_engines_is_answered_with_that(
    slow: Path, tmp_path: Path, run_dir: Path, records: Records
) -> None:
    lines = [chat(f"line {number}", "CRASH" if number == 9 else "hello") for number in range(40)]
    with Server([slow], flags(tmp_path, run_dir)) as server:
        batch = await records.done(await begun(server, lines))
    right, wrong = records.output(batch)
    assert (len(right), [one["custom_id"] for one in wrong]) == (39, ["line 9"])
    assert wrong[0]["response"]["status_code"] == 500
    assert wrong[0]["response"]["body"]["error"]["code"] == "engine_failed"


async def test_a_drain_does_not_wait_for_lines(
    slow: Path, tmp_path: Path, run_dir: Path, records: Records
) -> None:
    """They take minutes; what the next server finds done is what was recorded, and the rest it runs."""
    long = [chat(f"line {number}", max_tokens=100, ignore_eos=True) for number in range(40)]
    with Server([slow], flags(tmp_path, run_dir, "--drain-timeout", "600")) as server:
        name = await begun(server, long)
        await records.until(name, lambda batch: progress(batch) > 5)
        assert server.stop() == 0
    before = records.batch(name)
    assert (before.status, progress(before) < 40) == ("in_progress", True)
    with Server([slow], flags(tmp_path, run_dir)) as server:
        batch = await records.done(name)
    right, _ = records.output(batch)
    assert [one["custom_id"] for one in right] == [one["custom_id"] for one in long]


async def test_two_servers_share_batches_and_one_goes_on_when_the_other_is_killed(
    slow: Path, tmp_path: Path, run_dir: Path, postgres: Postgres
) -> None:
    url, options = postgres.database(), flags(tmp_path, run_dir)
    env = {"BASERT_DATABASE_URL": url}
    one, other = Server([slow], options, env=env), Server([slow], options, env=env)
    with one, other, Records(tmp_path, url) as records:
        names = [await begun(one, [chat(f"{batch} {i}") for i in range(200)]) for batch in range(4)]
        for name in names:
            await records.until(name, lambda batch: progress(batch) > 20)
        one.stop(signal.SIGKILL)
        done = [await records.done(name) for name in names]
        assert other.alive
        for number, batch in enumerate(done):
            right, wrong = records.output(batch)
            assert [line["custom_id"] for line in right] == [f"{number} {i}" for i in range(200)]
            assert wrong == []
