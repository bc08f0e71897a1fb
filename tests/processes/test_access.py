"""The line each request leaves in the log."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from basert.client import Client
from tests.processes.live import open_streams
from tests.serving import Server


def _lines(server: Server) -> list[dict[str, object]]:
    objects = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in objects if "path" in line]


@pytest.fixture
def logged(bundle: Path, run_dir: Path) -> Server:
    flags = ["--run-dir", str(run_dir), "--log-format", "json", "--drain-timeout", "0"]
    return Server([bundle], flags, api_key="secret-key")


async def test_every_request_leaves_one_line_and_no_secret(logged: Server) -> None:
    with logged as server:
        headers = {"Authorization": "Bearer secret-key", "X-Request-Id": "mine-1"}
        body = {"model": "tiny", "prompt": "a private prompt", "max_tokens": 5, "n": 2, "ignore_eos": True}
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            await client.post("/v1/completions", json=body, headers=headers)
            await client.post("/v1/completions", json=body)
            await client.get("/nowhere", headers=headers)
        async with Client(server.url, "secret-key") as client:
            (stream,) = await open_streams(client, 1, max_tokens=7)
            assert await stream.end() is None
            (cut,) = await open_streams(client, 1)
            await cut.leave()
    said = [(line["method"], line["path"], line["status"], line["tokens"]) for line in _lines(server)]
    *whole, (*aborted, tokens) = said
    assert whole == [
        ("POST", "/v1/completions", 200, 10),
        ("POST", "/v1/completions", 401, 0),
        ("GET", "/nowhere", 404, 0),
        ("POST", "/v1/completions", 200, 7),
    ]
    assert aborted == ["POST", "/v1/completions", 200]
    assert isinstance(tokens, int)
    assert tokens >= 1
    first = _lines(server)[0]
    assert first["request_id"] == "mine-1"
    assert first["process"] == "http"
    assert "private" not in server.log()
    assert "secret-key" not in server.log()


def test_it_can_be_switched_off(bundle: Path, run_dir: Path) -> None:
    with Server([bundle], ["--run-dir", str(run_dir), "--no-access-log"]) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
    assert "/v1/models" not in server.log()


def test_what_monitors_poll_is_not_logged(logged: Server) -> None:
    with logged as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert _lines(server) == []
