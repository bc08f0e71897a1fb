"""What clients see when a part of a server dies, and that the server is whole again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from basert.client import Client, RequestFailed
from basert.errors import Unavailable
from basert.manifest import GOLDEN
from tests.processes.live import (
    all_gone,
    arbiter_of,
    engine_of,
    open_streams,
    workers_of,
)
from tests.serving import Server
from tests.tiny import write_testing_bundle

SHORT = {"model": "tiny", "prompt": "hello", "max_tokens": 2}


async def _answers(server: Server) -> bool:
    """Whether it does, after any number of 503."""
    async with Client(server.url) as client:
        while True:
            try:
                answer = await client.post("/v1/completions", SHORT)
                return answer["usage"]["completion_tokens"] == 2
            except RequestFailed as error:
                if error.http_status != 503:
                    raise


async def test_a_killed_engine_ends_its_streams_with_an_error_and_comes_back(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 6)
        old = engine_of(server)
        old.kill()
        errors = [await stream.end() for stream in streams]
    assert [error and error.code for error in errors] == ["engine_failed"] * 6
    assert await _answers(server)
    assert engine_of(server).pid != old.pid


async def test_what_waits_for_a_slot_survives_the_engine(server: Server) -> None:
    """The ninth request of eight slots has yielded nothing: it is tried again."""
    async with Client(server.url) as client:
        streams = await open_streams(client, 8)
        waiting = asyncio.create_task(client.post("/v1/completions", SHORT))
        while b'basert_waiting_requests{model="tiny",replica="0"} 1.0' not in await client.get("/metrics"):
            pass
        engine_of(server).kill()
        for stream in streams:
            await stream.end()
        assert (await waiting)["usage"]["completion_tokens"] == 2


async def test_a_request_that_kills_engines_is_tried_only_twice(server: Server) -> None:
    async with Client(server.url) as client:
        with pytest.raises(RequestFailed) as caught:
            await client.post("/v1/completions", {"model": "tiny", "prompt": "CRASH", "max_tokens": 3})
    assert (caught.value.http_status, caught.value.code) == (500, "engine_failed")
    assert await _answers(server)


async def test_an_engine_that_hangs_is_killed_and_comes_back(bundle: Path, run_dir: Path) -> None:
    with Server([bundle], ["--run-dir", str(run_dir), "--heartbeat-timeout", "5"]) as server:
        async with Client(server.url) as client:
            (stream,) = await open_streams(client, 1)
            engine_of(server).suspend()
            error = await stream.end()
        assert error is not None
        assert error.code == "engine_failed"
        assert await _answers(server)
        assert "it did not answer for 5 s" in server.log()


async def test_a_killed_worker_is_replaced(server: Server) -> None:
    async with Client(server.url) as client:
        (stream,) = await open_streams(client, 1)
        (worker,) = workers_of(server)
        worker.kill()
        assert await stream.end() is not None
    assert await _answers(server)
    assert all_gone([worker])


async def test_a_killed_arbiter_breaks_no_stream_and_refuses_no_connection(
    bundle: Path, run_dir: Path
) -> None:
    with Server([bundle], ["--run-dir", str(run_dir), "--drain-timeout", "60"]) as server:
        async with Client(server.url) as client:
            streams = await open_streams(client, 2, max_tokens=40)
            workers = workers_of(server)
            arbiter_of(server).kill()
            async with Client(server.url) as late:  # waits on the port for the next gunicorn
                assert (await late.post("/v1/completions", SHORT))["usage"]["completion_tokens"] == 2
            assert [await stream.end() for stream in streams] == [None, None]
        assert all_gone(workers)
        assert await _answers(server)


async def test_what_a_dead_arbiters_workers_cannot_finish_ends_with_an_error(server: Server) -> None:
    async with Client(server.url) as client:
        (stream,) = await open_streams(client, 1)
        arbiter_of(server).kill()
        error = await stream.end()
    assert error is not None
    assert error.code == "shutting_down"
    assert await _answers(server)


async def test_a_killed_supervisor_leaves_nothing_but_a_folder_for_the_next_one(
    server: Server, bundle: Path, run_dir: Path
) -> None:
    processes = server.processes()
    async with Client(server.url) as client:
        streams = await open_streams(client, 3)
        server.stop(signal.SIGKILL)
        assert all(error is not None for error in [await stream.end() for stream in streams])
    assert all_gone(processes)
    (left,) = run_dir.iterdir()
    with Server([bundle], ["--run-dir", str(run_dir)]):
        (own,) = run_dir.iterdir()
        assert own != left
    assert list(run_dir.iterdir()) == []


def test_an_engine_that_dies_at_every_start_is_given_up(tmp_path: Path, run_dir: Path) -> None:
    bundle = write_testing_bundle(tmp_path, load_error="The weights are made of cheese.")
    flags = ["--run-dir", str(run_dir), "--restart-backoff", "0.01", "--restart-limit", "3"]
    server = Server([bundle], flags)
    with pytest.raises(Unavailable, match=r"No model can be served \(tiny: .*cheese"), server:
        pytest.fail("it is ready")
    assert server.log().count("it starts again in") == 2
    assert "given up after 3 deaths" in server.log()
    assert list(run_dir.iterdir()) == []


async def test_one_model_given_up_does_not_end_the_other(tmp_path: Path, bundle: Path, run_dir: Path) -> None:
    bad = write_testing_bundle(tmp_path, name="bad", load_error="It is made of cheese.")
    server = Server([bundle, bad], ["--run-dir", str(run_dir), "--restart-limit", "1"])
    try:
        async with Client(server.url) as client:
            await _until_ready_is_said(server)
            answer = await client.post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2})
            assert answer["usage"]["completion_tokens"] == 2
            with pytest.raises(RequestFailed, match="cheese") as caught:
                await client.post("/v1/completions", {"model": "bad", "prompt": "a"})
            assert caught.value.http_status == 503
    finally:
        assert server.stop() == 0


async def test_a_key_file_that_goes_while_a_model_loads_costs_no_engine(
    tmp_path: Path, run_dir: Path
) -> None:
    """Loading ends when a pipe in the place of one of the bundle's files has a writer."""
    bundle, keys = write_testing_bundle(tmp_path), tmp_path / "keys"
    golden, pipe = (bundle / GOLDEN).read_bytes(), bundle / GOLDEN
    pipe.unlink()
    os.mkfifo(pipe)
    keys.write_text("k\n")
    server = Server([bundle], ["--run-dir", str(run_dir), "--api-key-file", str(keys)])
    try:
        await _until_alive(server)
        keys.unlink()
        pipe.write_bytes(golden)
        await _until_ready_is_said(server)
    finally:
        assert server.stop() == 0
    assert "it starts again" not in server.log()


async def _until_alive(server: Server) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                assert (await client.get(f"{server.url}/livez")).status_code == 200
                return


async def _until_ready_is_said(server: Server) -> None:
    while "Try it" not in server.log():
        await asyncio.sleep(0.01)


def test_two_servers_on_one_port(server: Server, bundle: Path, run_dir: Path) -> None:
    command = [sys.executable, "-m", "basert", "serve", str(bundle), "--port", str(server.port)]
    second = subprocess.run(command, capture_output=True, text=True)
    said = (
        f"basert: Port {server.port} of 127.0.0.1 is taken by another server; choose another with --port.\n"
    )
    assert (second.returncode, second.stdout, second.stderr) == (2, "", said)
    assert httpx.get(f"{server.url}/readyz").status_code == 200
