"""Models loaded and unloaded while a server runs: what is there then, what is refused, what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from basert.client import Client, RequestFailed
from basert.manifest import GOLDEN
from tests.processes.live import all_gone, engines_of, open_streams, until
from tests.serving import Server
from tests.tiny import write_testing_bundle

SHORT = {"prompt": "hello", "max_tokens": 2}
TURNS = 50


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, slow enough for streams that stay open; `other`; and some that cannot be loaded."""
    folder = tmp_path_factory.mktemp("s")
    write_testing_bundle(folder, step_seconds=0.02, slots=8, max_context=20_000)
    write_testing_bundle(folder, name="other")
    write_testing_bundle(folder, name="bad", load_error="It is made of cheese.")
    write_testing_bundle(folder, name="endless", load_seconds=3600)
    write_testing_bundle(folder, name="huge", max_context=10**12)
    return folder


@pytest.fixture
def server(store: Path, run_dir: Path) -> Iterator[Server]:
    flags = ["--run-dir", str(run_dir), "--drain-timeout", "1", "--alias", "chat=tiny"]
    with Server(["tiny"], flags, env={"BASERT_HOME": str(store)}) as server:
        yield server


def _post(server: Server, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def _asks(server: Server, model: str) -> int:
    return _post(server, "/v1/completions", model=model, **SHORT).status_code


def test_a_model_comes_answers_and_goes(server: Server) -> None:
    assert _asks(server, "other") == 404
    loaded = _post(server, "/v1/models/load", model="other")
    assert (loaded.status_code, loaded.json()["status"], loaded.json()["percent"]) == (200, "ready", 100)
    (engine,) = engines_of(server, "other")
    assert _asks(server, "other") == 200
    assert _post(server, "/v1/models/load", model="other").status_code == 200  # which changes nothing
    assert engines_of(server, "other") == [engine]
    unloaded = _post(server, "/v1/models/unload", model="other")
    assert (unloaded.status_code, unloaded.json()) == (
        200,
        {"id": "other", "object": "model", "deleted": True},
    )
    assert not engine.is_running()
    assert _asks(server, "other") == 404
    assert [card.id for card in server.openai().models.list()] == ["tiny", "chat"]


def test_delete_unloads_and_an_alias_comes_back_with_its_model(server: Server) -> None:
    assert server.openai().models.delete("tiny").deleted
    assert (_asks(server, "tiny"), _asks(server, "chat")) == (404, 404)
    ready = httpx.get(f"{server.url}/readyz")  # nothing is served, and that was asked for
    assert (ready.status_code, ready.json()["models"]) == (200, [])
    assert _post(server, "/v1/models/unload", model="tiny").status_code == 404
    assert _post(server, "/v1/models/load", model="chat").status_code == 200
    assert (_asks(server, "tiny"), _asks(server, "chat")) == (200, 200)


@pytest.mark.parametrize("name", ["../tiny", "/etc", "tiny/../bad", ".tiny", "~", "a\0b", "x" * 101])
def test_only_names_are_taken(server: Server, name: str) -> None:
    refused = _post(server, "/v1/models/load", model=name)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert "no name for a bundle" in refused.json()["error"]["message"]
    assert _post(server, "/v1/models/swap", alias="chat", model=name).status_code == 400


def test_what_the_store_does_not_have(server: Server) -> None:
    for body, words in (({"model": "othr"}, "did you mean other?"), ({"model": "zzz"}, "it has bad, ")):
        refused = _post(server, "/v1/models/load", **body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert words in refused.json()["error"]["message"]
    assert str(server.pid) not in refused.text
    assert "/" not in refused.json()["error"]["message"]  # of this host's folders nothing is told
    nothing = _post(server, "/v1/models/load")
    assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "model")


def test_what_does_not_fit_is_refused_with_the_numbers(server: Server) -> None:
    refused = _post(server, "/v1/models/load", model="huge")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_room")
    assert "huge needs up to 64.0TB (" in refused.json()["error"]["message"]
    assert "keys and values" in refused.json()["error"]["message"]
    assert " are free" in refused.json()["error"]["message"]
    assert engines_of(server, "huge") == []


def test_a_model_that_does_not_load_is_told_and_forgotten(server: Server) -> None:
    failed = _post(server, "/v1/models/load", model="bad")
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "load_failed")
    assert failed.json()["error"]["message"] == "bad cannot be loaded: It is made of cheese."
    assert httpx.get(f"{server.url}/v1/models/bad").status_code == 404
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert server.log().count("made of cheese") == 2  # the engine's line and the supervisor's: one try


async def test_a_crash_while_loading_touches_no_other(server: Server) -> None:
    async with Client(server.url) as client:
        (stream,) = await open_streams(client, 1)
        loading = asyncio.create_task(client.post("/v1/models/load", {"model": "endless"}))
        await until(lambda: _runs(server, "endless"))
        (engine,) = engines_of(server, "endless")
        engine.kill()
        with pytest.raises(RequestFailed, match="endless cannot be loaded: it was ended by SIGKILL"):
            await loading
        chunks = stream.chunks
        while stream.chunks < chunks + 3:
            await asyncio.sleep(0.01)
        assert stream.error is None
        await stream.leave()
    assert engines_of(server, "endless") == []


async def _runs(server: Server, model: str) -> bool:
    return bool(engines_of(server, model))


async def _is(client: Client, model: str, status: str, stage: str = "") -> bool:
    try:
        card = (await client.get(f"/v1/models/{model}")).decode()
    except RequestFailed:
        return False
    return f'"status":"{status}","stage":"{stage}' in card


async def test_progress_is_told_and_the_server_is_ready_meanwhile(
    server: Server, store: Path, tmp_path: Path
) -> None:
    """Loading ends when a pipe in the place of one of the bundle's files has a writer."""
    bundle = write_testing_bundle(store, name=f"piped{tmp_path.name.replace('_', '')}"[:40])
    golden, pipe = (bundle / GOLDEN).read_bytes(), bundle / GOLDEN
    pipe.unlink()
    os.mkfifo(pipe)
    name = bundle.name
    async with Client(server.url) as client:
        loading = asyncio.create_task(client.post("/v1/models/load", {"model": name}))
        await until(lambda: _is(client, name, "loading", "checking"))
        assert b'"percent":50' in await client.get(f"/v1/models/{name}")
        assert b'"needed":false' in await client.get("/readyz")
        with pytest.raises(RequestFailed) as early:
            await client.post("/v1/completions", {"model": name, **SHORT})
        assert (early.value.http_status, early.value.code) == (503, "model_not_ready")
        again = asyncio.create_task(client.post("/v1/models/load", {"model": name}))  # waits for the same
        await asyncio.to_thread(pipe.write_bytes, golden)
        assert (await loading)["status"] == (await again)["status"] == "ready"
        assert len(engines_of(server, name)) == 1


async def test_loads_that_come_together_load_once(server: Server) -> None:
    async with Client(server.url) as client:
        orders = [client.post("/v1/models/load", {"model": "other"}) for _ in range(8)]
        assert {card["status"] for card in await asyncio.gather(*orders)} == {"ready"}
    assert len(engines_of(server, "other")) == 1
    assert server.log().count("] loading other ") == 1


async def test_a_client_that_leaves_does_not_end_the_loading(server: Server) -> None:
    async with Client(server.url) as client:
        loading = asyncio.create_task(client.post("/v1/models/load", {"model": "other"}))
        while not engines_of(server, "other"):
            await asyncio.sleep(0.001)
        loading.cancel()
        await asyncio.wait([loading])
        await until(lambda: _is(client, "other", "ready"))


async def test_unloading_lets_what_has_begun_end(store: Path, run_dir: Path) -> None:
    flags = ["--run-dir", str(run_dir), "--drain-timeout", "60"]
    with Server(["tiny"], flags, env={"BASERT_HOME": str(store)}) as server:
        async with Client(server.url) as client:
            streams = await open_streams(client, 3, max_tokens=40)
            (engine,) = engines_of(server, "tiny")
            unloading = asyncio.create_task(client.post("/v1/models/unload", {"model": "tiny"}))
            await until(lambda: _gone(client))
            assert [await stream.end() for stream in streams] == [None] * 3
            await unloading
            assert not engine.is_running()


async def _gone(client: Client) -> bool:
    try:
        await client.get("/v1/models/tiny")
    except RequestFailed as error:
        return error.http_status == 404
    return False


async def test_what_does_not_end_in_time_ends_with_an_error(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 3)
        await client.post("/v1/models/unload", {"model": "tiny"})
        errors = [await stream.end() for stream in streams]
    assert [error and error.code for error in errors] == ["model_unloaded"] * 3
    assert engines_of(server, "tiny") == []


def test_an_end_while_a_model_loads(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/models/load", json={"model": "endless"}, timeout=0.5)
    processes = server.processes()
    assert engines_of(server, "endless") != []
    assert server.stop(signal.SIGTERM) == 0
    assert all_gone(processes)


def test_keys_guard_it(store: Path, run_dir: Path) -> None:
    flags = ["--run-dir", str(run_dir)]
    with Server(["tiny"], flags, api_key="k", env={"BASERT_HOME": str(store)}) as server:
        for path in ("load", "unload", "swap"):
            refused = _post(server, f"/v1/models/{path}", model="other", alias="tiny")
            assert refused.status_code == 401
        assert httpx.delete(f"{server.url}/v1/models/tiny").status_code == 401
        assert server.openai().models.delete("tiny").deleted


def _files(server: Server) -> int:
    return sum(process.num_fds() for process in server.processes())


def _memory(server: Server) -> int:
    return sum(process.memory_full_info().pss for process in server.processes())


@pytest.mark.timeout(600)
def test_memory_and_files_are_back_where_they_were(server: Server, run_dir: Path) -> None:
    def turn() -> None:
        assert _post(server, "/v1/models/load", model="other").status_code == 200
        assert _asks(server, "other") == 200
        assert _post(server, "/v1/models/unload", model="other").status_code == 200

    for _ in range(5):
        turn()
    files, memory, sockets = _files(server), _memory(server), sorted(run_dir.rglob("*.sock"))
    for _ in range(TURNS):
        turn()
    while _files(server) > files:  # connections that clients have closed are noticed soon
        time.sleep(0.01)
    assert sorted(run_dir.rglob("*.sock")) == sockets
    assert _memory(server) < memory + (6 << 20)
