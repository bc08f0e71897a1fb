"""2,000 requests at concurrency 64, some abandoned half-way: none lost, none wrong, memory level."""

from __future__ import annotations

import asyncio
import http.client
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from basert.client import Client
from tests.serving import Server
from tests.tiny import write_testing_bundle

REQUESTS = 2000
CONCURRENCY = 64
PATH = "/v1/completions"


@dataclass(frozen=True)
class Case:
    """A greedy request, and its answer when it was alone."""

    body: dict[str, Any]
    answer: str


@dataclass
class Tally:
    answered: int = 0
    abandoned: int = 0
    wrong: list[tuple[Case, str]] = field(default_factory=list)


async def ask(client: Client, body: dict[str, Any]) -> str:
    """The whole text. Raises RequestFailed when any of it is missing."""
    return "".join([chunk.text async for chunk in client.stream(PATH, body)])


async def abandon(client: Client, body: dict[str, Any]) -> None:
    """Hang up when half of the answer is there."""
    stream = client.stream(PATH, body)
    for _ in range(body["max_tokens"] // 2):
        await anext(stream, None)
    await stream.aclose()


async def alone(client: Client, model: str, words: list[str], count: int) -> list[Case]:
    """Prompts of 1 to 40 words for answers of 2 to 10 tokens, each asked by itself."""
    lot = random.Random(1)
    cases = []
    for _ in range(count):
        prompt = " ".join(lot.choices(words, k=lot.choice((1, 3, 5, 7, 12, 40))))
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": lot.randint(2, 10),
            "temperature": 0,
            "ignore_eos": True,
        }
        cases.append(Case(body, await ask(client, body)))
    return cases


async def soak(client: Client, cases: list[Case], requests: int) -> Tally:
    lot = random.Random(2)
    tally = Tally()
    work: Iterator[tuple[Case, bool]] = iter(
        [(lot.choice(cases), lot.random() < 0.2) for _ in range(requests)]
    )

    async def one_client() -> None:
        for case, leave in work:
            if leave:
                await abandon(client, case.body)
                tally.abandoned += 1
                continue
            text = await ask(client, case.body)
            tally.answered += 1
            if text != case.answer:
                tally.wrong.append((case, text))

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(one_client())
    return tally


async def gauge(client: Client, name: str) -> float:
    families = text_string_to_metric_families((await client.get("/metrics")).decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def soaked(server: Server, model: str, text: str) -> None:
    """One round to warm up, one to count; fails on anything lost, wrong, stuck or leaked."""
    async with Client(server.url) as client:
        cases = await alone(client, model, text.split(), 40)
        await soak(client, cases, 4 * CONCURRENCY)
        before = server.resident_bytes()
        tally = await soak(client, cases, REQUESTS)
        after = server.resident_bytes()
        assert tally.answered + tally.abandoned == REQUESTS
        assert tally.abandoned > REQUESTS / 10
        assert tally.wrong == []
        while await gauge(client, "basert_running_requests") or await gauge(
            client, "basert_waiting_requests"
        ):
            await asyncio.sleep(0.05)  # the last cancellations are on their way
        assert await gauge(client, "basert_slots_used") == 0
    assert after < 1.05 * before, f"memory grew from {before >> 20} to {after >> 20} MB"
    assert "Traceback" not in server.log()


async def test_a_session_that_hashes_its_whole_input(tmp_path: Path) -> None:
    """Every token depends on all before it: one id in the wrong slot and the answer is another."""
    bundle = write_testing_bundle(tmp_path, sentence="", slots=16)
    with Server([bundle]) as server:
        await soaked(server, "tiny", "hello the world Grüße 🌍 user")


@pytest.mark.timeout(900)  # two to three minutes on two old cores
async def test_the_starter_model(smollm2_w8a8: Path) -> None:
    text = "the sea is full of small boats and every one has a name that nobody on land can say"
    with Server([smollm2_w8a8], ("--continuous-batching", "16", "--threads", "2")) as server:
        await soaked(server, smollm2_w8a8.name, text)


def test_connections_leave_nothing_behind(tmp_path: Path) -> None:
    """gunicorn's C parser and its connection hold each other where no garbage collector sees it."""

    def connect(server: Server, times: int) -> int:
        for _ in range(times):
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", "/livez")
            assert connection.getresponse().read()
            connection.close()
        return server.resident_bytes()

    with Server([write_testing_bundle(tmp_path)]) as server:
        before = connect(server, 200)
        assert connect(server, 3000) < before + (4 << 20)
