"""Keys of a running server: read again when their file changes, limits that all of its workers share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes.live import workers_of
from tests.serving import Server
from tests.tiny import write_testing_bundle

SHORT = {"model": "tiny", "prompt": "hello", "max_tokens": 2, "ignore_eos": True}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def flags(run_dir: Path, file: Path) -> list[str]:
    return [
        "--run-dir",
        str(run_dir),
        "--api-key-file",
        str(file),
        "--drain-timeout",
        "0",
        "--log-format",
        "json",
    ]


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.02)


def status(server: Server, key: str) -> int:
    return httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def complete(server: Server, key: str, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/completions", json=SHORT | fields, headers=headers, timeout=30)


def access_lines(server: Server) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if "path" in line]


def test_keys_are_read_again_when_their_file_changes(bundle: Path, flags: list[str], file: Path) -> None:
    file.write_text("old\n")
    with Server([bundle], flags) as server:
        assert [status(server, key) for key in ("old", "new")] == [200, 401]
        file.write_text("new  name=alice\n")
        until(lambda: status(server, "new") == 200)
        assert status(server, "old") == 401
        assert "the API keys were read again" in server.log()
        file.unlink()
        until(lambda: "the API keys stay as they were" in server.log())
        assert status(server, "new") == 200
        replacement = file.with_suffix(".other")
        replacement.write_text("third\n")
        replacement.rename(file)
        until(lambda: status(server, "third") == 200)


def test_a_broken_file_changes_nothing_and_is_told_of(bundle: Path, flags: list[str], file: Path) -> None:
    """A worker that starts meanwhile has the keys of all others."""
    file.write_text("old  name=alice\n")
    with Server([bundle], flags) as server:
        file.write_text("new\nother priority=urgent\n")
        told = "line 2: 'priority=urgent': one of interactive, batch is wanted."
        until(lambda: told in server.log())
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: server.log().count(told) == 2)
        (worker,) = workers_of(server)
        worker.kill()
        until(lambda: [one.pid for one in workers_of(server)] not in ([worker.pid], []))
        assert [status(server, key) for key in ("old", "new")] == [200, 401]
    assert {line.get("key") for line in access_lines(server) if line["status"] == 200} == {"alice"}
    assert all("key" not in line for line in access_lines(server) if line["status"] == 401)


def test_two_workers_share_a_limit_and_a_dead_one_takes_nothing_along(
    bundle: Path, flags: list[str], file: Path
) -> None:
    file.write_text("mine  name=alice  requests-per-minute=6\nother\n")
    with Server([bundle], [*flags, "--workers", "2"]) as server:
        until(lambda: len(workers_of(server)) == 2)
        began, answers = time.monotonic(), list[httpx.Response]()

        def both_refused() -> bool:
            answers.append(complete(server, "mine"))
            refused = [line for line in access_lines(server) if line["status"] == 429]
            return len({line["pid"] for line in refused}) == 2

        until(both_refused)
        took = time.monotonic() - began
        admitted = sum(answer.status_code == 200 for answer in answers)
        assert 6 <= admitted <= 6 + took / 10
        assert {answer.status_code for answer in answers} == {200, 429}
        for worker in (before := workers_of(server)):
            worker.kill()
        until(lambda: len({one.pid for one in workers_of(server)} - {one.pid for one in before}) == 2)
        answers.append(complete(server, "mine"))
        refused = answers[-1]
        admitted += refused.status_code == 200
        assert admitted <= 6 + (time.monotonic() - began) / 10
        assert complete(server, "other").status_code == 200
        assert "x-ratelimit-limit-requests" not in complete(server, "other").headers


def test_the_tokens_of_a_limit_are_reserved_and_then_corrected(
    bundle: Path, flags: list[str], file: Path
) -> None:
    file.write_text("mine  name=alice  tokens-per-minute=1000\n")
    with Server([bundle], flags) as server:
        prompt = complete(server, "mine").json()["usage"]["prompt_tokens"]
        began = time.monotonic()
        with httpx.stream(
            "POST",
            f"{server.url}/v1/completions",
            json=SHORT | {"max_tokens": 900, "stream": True},
            headers={"Authorization": "Bearer mine"},
            timeout=30,
        ) as stream:
            left = int(stream.headers["x-ratelimit-remaining-tokens"])
            refused = complete(server, "mine", max_tokens=900)
            took = time.monotonic() - began
        assert 0 <= left - (1000 - 900 - 2 * prompt - 2) <= 1000 / 60 * took + 1
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert (
            f"1000 tokens per minute, {refused.headers['x-ratelimit-remaining-tokens']}"[:22]
            in error["message"]
        )
        assert float(refused.headers["retry-after-ms"]) <= 60_000
        until(lambda: int(complete(server, "mine").headers.get("x-ratelimit-remaining-tokens", 0)) > 700)
        too_large = complete(server, "mine", prompt="hello " * 1500)
        assert (too_large.status_code, too_large.headers["x-should-retry"]) == (429, "false")
        assert "Request too large for this key" in too_large.json()["error"]["message"]
        assert "retry-after" not in too_large.headers


async def test_a_key_of_the_batch_lane_waits_for_all_others(
    tmp_path: Path, flags: list[str], file: Path
) -> None:
    one_slot = write_testing_bundle(tmp_path, step_seconds=0.02, slots=1, max_context=20_000)
    file.write_text("day\nnight  priority=batch\n")
    ended = list[str]()
    with Server([one_slot], flags) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client, asyncio.TaskGroup() as group:

            async def ask(key: str, **fields: Any) -> None:
                headers = {"Authorization": f"Bearer {key}"}
                await client.post("/v1/completions", json=SHORT | fields, headers=headers)
                ended.append(key)

            async def until_engine_has(figure: str) -> None:
                while figure not in (await client.get("/metrics")).text.splitlines():
                    await asyncio.sleep(0.01)

            first = group.create_task(ask("day", max_tokens=10_000))
            await until_engine_has('basert_running_requests{model="tiny",replica="0"} 1.0')
            group.create_task(ask("night", priority=0))  # whatever it asks for
            await until_engine_has('basert_waiting_requests{model="tiny",replica="0"} 1.0')
            group.create_task(ask("day"))
            await until_engine_has('basert_waiting_requests{model="tiny",replica="0"} 2.0')
            first.cancel()
    assert ended == ["day", "night"]


def asked(server: Server, *forwarded: str, header: str = "X-Forwarded-For") -> int:
    named = [(header, value) for value in forwarded]
    answer = httpx.post(f"{server.url}/v1/completions", json=SHORT, headers=named, timeout=30)
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    return answer.status_code


def test_an_open_server_limits_by_address(bundle: Path, run_dir: Path) -> None:
    with Server([bundle], ["--run-dir", str(run_dir), "--drain-timeout", "0", "--rate-limit", "2"]) as server:
        assert [asked(server) for _ in range(3)] == [200, 200, 429]
        assert asked(server, "192.0.2.1") == asked(server, "192.0.2.1", header="X-Real-IP") == 429


def test_behind_a_proxy_its_header_tells_clients_apart(bundle: Path, run_dir: Path) -> None:
    flags = ["--run-dir", str(run_dir), "--drain-timeout", "0", "--rate-limit", "2"]
    with Server([bundle], [*flags, "--client-address-header", "X-Forwarded-For"]) as server:
        assert [asked(server) for _ in range(3)] == [200, 200, 429]
        assert [asked(server, "10.0.0.1, 192.0.2.1") for _ in range(3)] == [200, 200, 429]
        # What the client claims comes before what the proxy saw, in one line or in two.
        assert asked(server, "192.0.2.9, 192.0.2.1") == asked(server, "192.0.2.9", "192.0.2.1") == 429
        assert asked(server, "192.0.2.2") == 200
        # One network of one customer.
        assert [asked(server, f"2001:db8::{n}") for n in range(3)] == [200, 200, 429]
        assert asked(server, "nobody") == 429  # no address: the proxy's own


def test_limits_of_addresses_are_for_open_servers(bundle: Path, file: Path) -> None:
    file.write_text("k\n")
    with pytest.raises(Exception, match=r"--rate-limit .flag --rate-limit. is for a server without keys"):
        Server([bundle], ["--api-key-file", str(file), "--rate-limit", "2"]).__enter__()
