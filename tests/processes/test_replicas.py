"""Several engines of one model: who gets what, and that one's death is no other's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from basert import cpus
from basert.client import Client
from basert.schema.others import Replica
from tests.processes.live import Stream, engines_of, open_streams, until
from tests.serving import Server


class Card(msgspec.Struct):
    replicas: list[Replica]


@pytest.fixture
def server(bundle: Path, run_dir: Path) -> Iterator[Server]:
    with Server([bundle], ["--run-dir", str(run_dir), "--replicas", "2", "--drain-timeout", "1"]) as server:
        yield server


async def _figures(client: Client, name: str) -> list[float]:
    """By replica."""
    families = text_string_to_metric_families((await client.get("/metrics")).decode())
    found = {
        one.labels["replica"]: one.value for family in families for one in family.samples if one.name == name
    }
    return [found[replica] for replica in sorted(found)]


async def test_requests_are_spread(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 6)
        assert await _figures(client, "basert_running_requests") == [3, 3]
        for stream in streams:
            await stream.leave()


async def test_a_death_takes_its_own_streams_only(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 6)
        first, second = engines_of(server, "tiny")
        first.kill()
        while sum(stream.error is not None for stream in streams) < 3:
            await asyncio.sleep(0.01)
        alive = [stream for stream in streams if stream.error is None]
        chunks = [stream.chunks for stream in alive]
        assert b'"status":"ready"' in await client.get("/readyz")  # the model can answer
        assert (await client.post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2}))["id"]
        await until(lambda: _both(client))
        assert [one.restarts for one in (await _replicas(client))] == [1, 0]
        while any(stream.chunks <= count for stream, count in zip(alive, chunks, strict=True)):
            await asyncio.sleep(0.01)
        assert [stream.error for stream in alive] == [None] * 3
        assert [stream.error.code for stream in streams if stream.error] == ["engine_failed"] * 3
        assert second.is_running()
        for stream in alive:
            await stream.leave()


async def _both(client: Client) -> bool:
    return await _figures(client, "basert_replica_up") == [1, 1]


async def _replicas(client: Client) -> list[Replica]:
    card = msgspec.json.decode(await client.get("/v1/models/tiny"), type=Card)
    return card.replicas


async def test_what_had_yielded_nothing_goes_to_another(server: Server) -> None:
    """Eighteen requests for sixteen slots; what waits with the engine that dies is tried with the other."""
    async with Client(server.url) as client:
        streams = await open_streams(client, 16)
        short = {"model": "tiny", "prompt": "hello", "max_tokens": 2}
        waiting = [asyncio.create_task(client.post("/v1/completions", short)) for _ in range(2)]
        await until(lambda: _waiting(client))
        engines_of(server, "tiny")[0].kill()
        await _end_some(streams)
        answers = await asyncio.gather(*waiting)
        assert [answer["usage"]["completion_tokens"] for answer in answers] == [2, 2]


async def _end_some(streams: list[Stream]) -> None:
    """Those of the other engine leave, so that there is room."""
    while sum(stream.error is not None for stream in streams) < 8:
        await asyncio.sleep(0.01)
    for stream in streams:
        if stream.error is None:
            await stream.leave()


async def _waiting(client: Client) -> bool:
    return await _figures(client, "basert_waiting_requests") == [1, 1]


async def test_equal_beginnings_meet_and_are_computed_once(server: Server) -> None:
    prompt = "hello the world user " * 40
    async with Client(server.url) as client:
        for turn in range(6):
            body = {"model": "tiny", "prompt": f"{prompt}{turn}", "max_tokens": 1}
            await client.post("/v1/completions", body)
        assert sorted(await _figures(client, "basert_engine_requests_admitted_total")) == [0, 6]
        assert sorted(await _figures(client, "basert_engine_prefix_cache_hits_total")) == [0, 5]


def test_each_has_cpus_of_its_own(bundle: Path, run_dir: Path) -> None:
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("needs two CPUs")
    with Server([bundle], ["--run-dir", str(run_dir), "--replicas", "2"]) as server:
        found = [frozenset(engine.cpu_affinity()) for engine in engines_of(server, "tiny")]
    assert sorted(found, key=min) == [share for share, _ in cpus.divided(usable, 2)]


async def test_all_of_them_go_when_it_is_unloaded(server: Server) -> None:
    engines = engines_of(server, "tiny")
    assert len(engines) == 2
    async with Client(server.url) as client:
        await client.post("/v1/models/unload", {"model": "tiny"})
    assert not any(engine.is_running() for engine in engines)
