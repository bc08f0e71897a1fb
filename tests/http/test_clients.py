"""Clients as they come: impatient, slow, silent, talkative. A real server, gunicorn and an engine process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Server
from tests.tiny import write_testing_bundle

LONG = {"model": "slow", "prompt": "hello", "max_tokens": 19_000, "ignore_eos": True}
FLAGS = (
    "--max-body-bytes",
    "100000",
    "--keep-alive-interval",
    "0.1",
    "--max-queue",
    "4",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two slots, twenty tokens a second."""
    bundle = write_testing_bundle(
        tmp_path_factory.mktemp("b"), name="slow", slots=2, step_seconds=0.05, max_context=20_000
    )
    with Server([bundle], FLAGS) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Waits half a second for a body: no server for clients that a machine may stall."""
    with Server([write_testing_bundle(tmp_path_factory.mktemp("b"))], ["--body-timeout", "0.5"]) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield http
        assert await until(http, "basert_slots_used", 0) == 0  # nothing may outlive its client


async def figure(client: httpx.AsyncClient, name: str) -> float:
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def until(client: httpx.AsyncClient, name: str, value: float) -> float:
    """Ask until the figure has this value; pytest's time limit ends a wait for ever."""
    while (now := await figure(client, name)) != value:
        await asyncio.sleep(0.02)
    return now


async def raw(server: Server, head: str, *bodies: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
    for body in bodies:
        writer.write(body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slots(
    server: Server, client: httpx.AsyncClient, stream: bool, n: int
) -> None:
    cancelled = await figure(client, "basert_engine_requests_cancelled_total")
    body = json.dumps(LONG | {"stream": stream, "n": n}).encode()
    _, writer = await raw(server, f"Content-Length: {len(body)}", body)
    await until(client, "basert_slots_used", n)
    writer.close()
    await until(client, "basert_slots_used", 0)
    await until(client, "basert_engine_requests_cancelled_total", cancelled + n)
    await until(client, "basert_open_requests", 0)


async def test_a_client_that_leaves_the_queue_is_forgotten(server: Server, client: httpx.AsyncClient) -> None:
    body = json.dumps(LONG | {"stream": True}).encode()
    writers = [(await raw(server, f"Content-Length: {len(body)}", body))[1] for _ in range(4)]
    await until(client, "basert_waiting_requests", 2)
    for writer in writers[2:]:
        writer.close()
    await until(client, "basert_waiting_requests", 0)
    assert await figure(client, "basert_slots_used") == 2
    for writer in writers[:2]:
        writer.close()


async def test_more_prompts_than_slots_take_turns_instead_of_filling_the_queue(
    client: httpx.AsyncClient,
) -> None:
    body = {"model": "slow", "prompt": [[5, n] for n in range(20, 32)], "max_tokens": 1}
    answer = (await client.post("/v1/completions", json=body)).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(12))


async def test_a_full_queue_is_told_before_a_stream_begins(server: Server, client: httpx.AsyncClient) -> None:
    body = json.dumps(LONG | {"stream": True}).encode()
    writers = [(await raw(server, f"Content-Length: {len(body)}", body))[1] for _ in range(6)]
    await until(client, "basert_waiting_requests", 4)
    refused = await client.post("/v1/completions", json=LONG | {"stream": True})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    for writer in writers:
        writer.close()


async def test_a_stream_that_waits_in_the_queue_is_kept_alive(
    server: Server, client: httpx.AsyncClient
) -> None:
    body = json.dumps(LONG | {"stream": True}).encode()
    writers = [(await raw(server, f"Content-Length: {len(body)}", body))[1] for _ in range(2)]
    await until(client, "basert_slots_used", 2)
    async with client.stream(
        "POST", "/v1/completions", json=LONG | {"stream": True, "max_tokens": 2}
    ) as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert await anext(lines) == ": keep-alive"
        for writer in writers:
            writer.close()
        rest = [line async for line in lines if line and line != ": keep-alive"]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused_while_it_comes(
    server: Server, client: httpx.AsyncClient, chunked: bool
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    content: Any = parts() if chunked else b" " * 1_000_000
    answer = await client.post(
        "/v1/completions", content=content, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_a_client_that_does_not_read_is_taken_for_gone(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path, name="quick", slots=32)
    body = json.dumps(
        LONG | {"model": "quick", "max_tokens": 200, "stream": True, "n": 128}
    ).encode()  # megabytes of chunks
    with Server([bundle], ["--stall-timeout", "0.3"]) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            _, writer = await raw(server, f"Content-Length: {len(body)}", body)
            await until(client, "basert_requests_total", 1)
            await until(client, "basert_open_requests", 0)
            assert 'outcome="cancelled"' in (await client.get("/metrics")).text
            writer.close()


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/models"])
async def test_a_refusal_reaches_a_client_that_is_still_sending(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b" " * 3_000_000)
    assert answer.status_code in (404, 405)


@pytest.mark.parametrize(
    ("head", "begun"),
    [
        ("Content-Length: 100", b'{"mod'),
        ("Content-Length: 100", b""),
        ("Transfer-Encoding: chunked", b'5\r\n{"mod\r\n'),
    ],
)
async def test_a_body_that_does_not_come_is_not_waited_for(
    hasty_server: Server, head: str, begun: bytes
) -> None:
    reader, writer = await raw(hasty_server, head, begun)
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    assert b'"code":"body_timeout"' in await reader.read()
    writer.close()


async def test_a_body_is_asked_for_only_if_it_will_be_taken(server: Server) -> None:
    for length, status in ((5, 100), (200_000, 413)):
        reader, writer = await raw(server, f"Expect: 100-continue\r\nContent-Length: {length}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 %d" % status)
        writer.close()


async def test_headers_too_large_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models", headers={"x-large": "x" * 20_000})
    assert answer.status_code == 431


async def test_pipelined_and_kept_alive_requests_are_all_answered(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    for _ in range(3):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        assert await reader.readexactly(length) == b'{"status":"ok"}'
    writer.close()
