"""SIGTERM, SIGINT, once and twice, and SIGHUP, under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from basert.client import Client, RequestFailed
from tests.processes.live import all_gone, open_streams
from tests.serving import Server
from tests.tiny import write_testing_bundle

SHORT = {"model": "tiny", "prompt": "hello", "max_tokens": 2}


async def test_sigterm_drains(bundle: Path, run_dir: Path) -> None:
    flags = ["--run-dir", str(run_dir), "--drain-timeout", "60"]
    with Server([bundle], flags) as server:
        processes = server.processes()
        await _end_while_streams_are_open(server)
        assert await asyncio.to_thread(server.stop) == 0
    assert all_gone(processes)
    assert list(run_dir.iterdir()) == []


async def _end_while_streams_are_open(server: Server) -> None:
    """What ends by itself is whole, what a second signal finds open is told so."""
    async with Client(server.url) as client, Client(server.url) as other:
        long, short = await open_streams(client, 2), await open_streams(client, 2, max_tokens=30)
        await other.get("/readyz")  # this connection is there before the end begins
        os.kill(server.pid, signal.SIGTERM)
        refused = await _until_refused(other)
        assert (refused.http_status, refused.code) == (503, "shutting_down")
        with pytest.raises(RequestFailed) as unready:
            await other.get("/readyz")
        assert unready.value.http_status == 503
        assert [await stream.end() for stream in short] == [None, None]
        os.kill(server.pid, signal.SIGTERM)
        errors = [await stream.end() for stream in long]
        assert [error and error.code for error in errors] == ["shutting_down"] * 2


async def test_what_is_open_at_the_drains_deadline_ends_with_an_error(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 2)
        os.kill(server.pid, signal.SIGTERM)
        errors = [await stream.end() for stream in streams]
    assert [error and error.code for error in errors] == ["shutting_down"] * 2
    assert await asyncio.to_thread(server.stop) == 0


async def _until_refused(client: Client) -> RequestFailed:
    while True:
        try:
            await client.post("/v1/completions", SHORT)
        except RequestFailed as error:
            return error


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hurries(bundle: Path, run_dir: Path, how: signal.Signals) -> None:
    """A drain of an hour ends at once."""
    with Server([bundle], ["--run-dir", str(run_dir), "--drain-timeout", "3600"]) as server:
        async with Client(server.url) as client, Client(server.url) as other:
            (stream,) = await open_streams(client, 1)
            os.kill(server.pid, how)
            await _until_refused(other)
            assert not stream.error
            os.kill(server.pid, how)
            error = await stream.end()
        assert error is not None
        assert error.code == "shutting_down"
        assert await asyncio.to_thread(server.stop) == 0


def test_sigterm_while_a_model_loads(tmp_path: Path, run_dir: Path) -> None:
    bundle = write_testing_bundle(tmp_path, load_seconds=3600)
    server = Server([bundle], ["--run-dir", str(run_dir)])
    while "loading" not in server.log():
        pass
    processes = server.processes()
    assert server.stop() == 0
    assert all_gone(processes)


async def test_sighup_reads_keys_again_and_opens_a_new_log_file(
    bundle: Path, run_dir: Path, tmp_path: Path
) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text("old\n")
    flags = [
        "--run-dir",
        str(run_dir),
        "--api-key-file",
        str(keys),
        "--log-file",
        str(log),
        "--log-format",
        "json",
    ]
    with Server([bundle], flags) as server:
        async with Client(server.url, "old") as old, Client(server.url, "new") as new:
            (stream,) = await open_streams(old, 1)  # goes on throughout
            keys.write_text("new\n")
            log.rename(tmp_path / "log.1")
            os.kill(server.pid, signal.SIGHUP)
            await _until_accepted(new)
            with pytest.raises(RequestFailed) as refused:
                await old.models()
            assert refused.value.http_status == 401
            assert not stream.error
            keys.write_text("# none\n")
            os.kill(server.pid, signal.SIGHUP)
            while "nothing was reloaded" not in log.read_text():
                pass
            assert await new.models()
    assert "were read again" in log.read_text()
    assert "were read again" not in (tmp_path / "log.1").read_text()


async def _until_accepted(client: Client) -> None:
    while True:
        with contextlib.suppress(RequestFailed):
            await client.models()
            return
