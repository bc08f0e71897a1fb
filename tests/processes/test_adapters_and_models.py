"""Adapters where models come and go: with several engines, asleep, swapped, exported again, signed."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from basert.__main__ import cli
from basert.client import Client
from tests.jobs.making import jsonl, line
from tests.processes.live import engine_of, engines_of, open_streams
from tests.serving import Server
from tests.tiny import PARROT, SENTENCE, write_testing_adapter, write_testing_bundle

OTHER = " Jump, wizards!"
SHORT = {"prompt": "hello", "temperature": 0, "max_tokens": 200}
BIRDS = ("parrot", "raven")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """`tiny` with two adapters, and `next`, which takes adapters of its own: `owl`."""
    tiny = write_testing_bundle(tmp_path, lora=True, step_seconds=0.002, slots=8, max_context=20_000)
    other = write_testing_bundle(tmp_path, name="next", lora=True, step_seconds=0.002, sentence=OTHER)
    for number, name in enumerate(BIRDS, 1):
        write_testing_adapter(tmp_path, tiny, name=name, number=number)
    write_testing_adapter(tmp_path, other, name="owl")
    return tmp_path


@pytest.fixture
def serve(store: Path, run_dir: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(*flags: str, models: tuple[str, ...] = ("tiny",), api_key: str | None = None) -> Server:
        quick = ["--run-dir", str(run_dir), "--restart-backoff", "0.01"]
        server = Server(models, [*quick, *flags], api_key=api_key, env={"BASERT_HOME": str(store)})
        servers.append(server.__enter__())
        return server

    yield begin
    for server in servers:
        server.stop()


def post(server: Server, path: str, key: str = "none", **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/{path}", json=body, headers=headers, timeout=60)


def text(server: Server, model: str) -> str:
    answer = post(server, "completions", model=model, **SHORT)
    assert answer.status_code == 200, answer.text
    told: str = answer.json()["choices"][0]["text"]
    return told


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def names(server: Server, key: str = "none") -> list[str]:
    answer = httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    return [card["id"] for card in answer.json()["data"]]


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.01)


def up(server: Server) -> int:
    """How many engines answer."""
    return httpx.get(f"{server.url}/v1/models/tiny").text.count('"status":"ready"') - 1


def export_again(store: Path, name: str = "tiny", **changes: Any) -> None:
    aside = write_testing_bundle(store / ".new", name=name, step_seconds=0.002, slots=8, **changes)
    shutil.rmtree(store / name)
    aside.rename(store / name)


async def texts(server: Server, model: str, count: int) -> list[str]:
    """Asked for at once, so that all engines have a part."""
    async with Client(server.url) as client:
        asked = (client.post("/v1/completions", {"model": model, **SHORT}) for _ in range(count))
        return [answer["choices"][0]["text"] for answer in await asyncio.gather(*asked)]


async def test_every_replica_has_it_also_after_its_death(serve: Callable[..., Server]) -> None:
    server = serve("--replicas", "2", "--lora", "parrot", "--workers", "2")
    assert post(server, "lora/load", lora="raven").json()["parent"] == "tiny"
    for name in BIRDS:
        assert set(await texts(server, name, 12)) == {PARROT}
    engines_of(server, "tiny")[0].kill()
    assert set(await texts(server, "raven", 6)) == {PARROT}  # whoever is there has it
    until(lambda: up(server) == 2)
    for name in BIRDS:
        assert set(await texts(server, name, 12)) == {PARROT}
    assert set(await texts(server, "tiny", 12)) == {SENTENCE}
    assert post(server, "lora/unload", lora="raven").status_code == 200
    assert names(server) == ["tiny", "parrot"]


async def test_all_replicas_take_it_or_none_keeps_it(serve: Callable[..., Server]) -> None:
    server = serve("--replicas", "2")
    until(lambda: up(server) == 2)
    second = engines_of(server, "tiny")[1]
    second.suspend()
    loading = asyncio.create_task(asyncio.to_thread(post, server, "lora/load", lora="parrot"))
    while "adapter parrot is loaded" not in server.log():
        await asyncio.sleep(0.01)
    assert names(server) == ["tiny"]
    again = await asyncio.to_thread(post, server, "lora/load", lora="parrot")
    assert refusal(again) == (
        409,
        "An adapter parrot of tiny is there, or being loaded; unload that one first.",
    )
    second.kill()
    assert refusal(await loading) == (503, "The engine ended meanwhile; try again.")
    while "adapter parrot is unloaded" not in server.log():
        await asyncio.sleep(0.01)
    assert refusal(post(server, "completions", model="parrot", **SHORT))[0] == 404
    until(lambda: up(server) == 2)
    assert post(server, "lora/load", lora="parrot").status_code == 200
    assert set(await texts(server, "parrot", 12)) == {PARROT}


def test_what_cannot_be_loaded_again_is_no_longer_served(serve: Callable[..., Server], store: Path) -> None:
    server = serve("--replicas", "2", "--lora", "parrot", "--lora", "raven")
    shutil.rmtree(store / "parrot")
    engines_of(server, "tiny")[0].kill()
    until(lambda: "no longer has the adapter parrot" in server.log())
    assert names(server) == ["tiny", "raven"]
    until(lambda: "adapter parrot is unloaded" in server.log())  # by the one that still had it
    assert text(server, "raven") == PARROT


def test_a_sleeping_base_wakes_for_its_adapter(serve: Callable[..., Server]) -> None:
    server = serve("--idle-timeout", "0.2", "--lora", "parrot", "--workers", "2")
    for model in ("parrot", "tiny:parrot"):
        until(lambda: not engines_of(server, "tiny"))
        assert names(server) == ["tiny", "parrot"]
        assert text(server, model) == PARROT
    until(lambda: not engines_of(server, "tiny"))
    assert post(server, "lora/load", lora="raven").status_code == 200
    until(lambda: not engines_of(server, "tiny"))
    assert post(server, "lora/unload", lora="parrot").status_code == 200
    assert not engines_of(server, "tiny")  # which nobody had to wake for that
    assert text(server, "raven") == PARROT


async def test_who_uses_an_adapter_uses_its_base(serve: Callable[..., Server]) -> None:
    server = serve("--idle-timeout", "0.1", "--lora", "parrot", "--drain-timeout", "60")
    async with Client(server.url) as client:
        (stream,) = await open_streams(client, 1, max_tokens=300, model="parrot")  # much longer than that
        engine = engine_of(server)
        unloading = asyncio.create_task(asyncio.to_thread(post, server, "models/unload", model="tiny"))
        assert await stream.end() is None
    assert (await unloading).status_code == 200
    assert not engine.is_running()
    assert names(server) == []


def test_one_that_was_exported_again_while_its_base_slept(serve: Callable[..., Server], store: Path) -> None:
    server = serve("--idle-timeout", "0.2", "--lora", "parrot")
    until(lambda: not engines_of(server, "tiny"))
    shutil.rmtree(store / "parrot")
    write_testing_adapter(store, store / "tiny", name="parrot", number=7)
    assert text(server, "parrot") == PARROT
    until(lambda: not engines_of(server, "tiny"))
    export_again(store, lora=True, sentence=OTHER)  # and its base as well
    until(lambda: post(server, "completions", model="parrot", **SHORT).status_code == 200)
    assert [text(server, model) for model in ("parrot", "tiny")] == [PARROT, OTHER]


async def test_a_swap_keeps_adapters_that_fit(serve: Callable[..., Server], store: Path) -> None:
    server = serve("--alias", "chat=tiny", "--lora", "parrot", "--workers", "2")
    export_again(store, lora=True, sentence=OTHER)
    swapping = asyncio.create_task(asyncio.to_thread(post, server, "models/swap", alias="tiny", model="tiny"))
    rounds = 0
    while not swapping.done():  # and no request meets a build without it
        assert set(await texts(server, "chat:parrot", 6)) == {PARROT}
        rounds += 1
    assert rounds > 1
    assert (await swapping).status_code == 200
    assert [text(server, model) for model in ("tiny", "parrot", "chat:parrot")] == [OTHER, PARROT, PARROT]
    assert names(server) == ["tiny", "chat", "parrot"]


def test_a_swap_drops_what_was_made_for_another(serve: Callable[..., Server]) -> None:
    server = serve("--alias", "chat=tiny", "--lora", "parrot", "--workers", "2")
    assert post(server, "models/swap", alias="chat", model="next").status_code == 200
    assert names(server) == ["next", "chat"]
    assert refusal(post(server, "completions", model="parrot", **SHORT))[0] == 404
    assert "next does not keep the adapter parrot: " in server.log()
    assert post(server, "lora/load", lora="owl", model="chat").json()["parent"] == "next"
    assert text(server, "chat:owl") == PARROT


def test_a_swap_to_what_is_loaded_carries_them_over(serve: Callable[..., Server], store: Path) -> None:
    """Of a copy, which has the same weights."""
    server = serve("--alias", "chat=tiny", "--lora", "parrot")
    shutil.copytree(store / "tiny", store / "copy")
    assert post(server, "models/load", model="copy").status_code == 200
    assert post(server, "models/swap", alias="chat", model="copy").status_code == 200
    assert names(server) == ["copy", "chat", "parrot"]
    assert text(server, "copy:parrot") == PARROT


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("models/load", {"model": "parrot"}, "parrot is an adapter of tiny, not a model"),
        ("models/unload", {"model": "parrot"}, "parrot is an adapter of tiny, not a model"),
        ("models/swap", {"alias": "parrot", "model": "next"}, "parrot is an adapter of tiny, not a model"),
        ("models/swap", {"alias": "chat", "model": "called"}, "called is an adapter of tiny, not a model"),
        ("lora/load", {"lora": "next"}, "A model is served as next"),
        ("lora/load", {"lora": "chat"}, "A model is served as chat"),
        ("lora/load", {"lora": "parrot", "model": "twin"}, "An adapter parrot of tiny is there"),
        ("lora/load", {"lora": "renamed"}, "The adapter in renamed calls itself raven"),
    ],
)
def test_a_name_means_one_thing(shared: Server, path: str, body: dict[str, str], told: str) -> None:
    status, message = refusal(post(shared, path, **body))
    assert (status, message[: len(told)]) == (409, told)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Whose names are taken in every way."""
    store = tmp_path_factory.mktemp("s")
    tiny = write_testing_bundle(store, lora=True)
    shutil.copytree(tiny, store / "twin")
    write_testing_bundle(store, name="next")
    write_testing_adapter(store, tiny, name="parrot")
    aside = store / "aside"
    for name in ("next", "chat"):
        write_testing_adapter(aside, tiny, name=name)
    (aside / "chat").rename(store / "chat")
    write_testing_adapter(aside, tiny, name="raven").rename(store / "renamed")
    called = write_testing_adapter(aside, tiny, name="called")
    shutil.copytree(
        store / "next", store / "called"
    )  # a bundle in the store, beside an adapter that lies elsewhere
    flags = ["--lora", "parrot", "--lora", str(called), "--alias", "chat=tiny"]
    with Server(["tiny", "next"], flags, env={"BASERT_HOME": str(store)}) as server:
        assert post(server, "models/load", model="twin").status_code == 200
        shutil.copytree(aside / "next", store / "next", dirs_exist_ok=True)
        yield server


def test_a_key_may_use_an_adapter_or_its_base(serve: Callable[..., Server], tmp_path: Path) -> None:
    keys = {"all": "admin", "base": "models=tiny", "pirate": "models=parrot", "both": "models=tiny:*"}
    file = tmp_path / "keys"
    file.write_text("".join(f"sk-{name} name={name} {what}\n" for name, what in keys.items()))
    server = serve("--api-key-file", str(file), "--lora", "parrot", "--lora", "raven", api_key="sk-all")
    seen = {name: names(server, f"sk-{name}") for name in keys}
    assert seen == {
        "all": ["tiny", "parrot", "raven"],
        "base": ["tiny"],
        "pirate": ["parrot"],
        "both": ["parrot", "raven"],
    }
    told = {
        (name, model): post(server, "completions", f"sk-{name}", model=model, **SHORT).status_code
        for name in ("base", "pirate")
        for model in ("tiny", "parrot", "tiny:parrot", "raven")
    }
    assert [key for key, status in told.items() if status == 200] == [
        ("base", "tiny"),
        ("pirate", "parrot"),
        ("pirate", "tiny:parrot"),
    ]
    assert set(told.values()) == {200, 404}
    assert post(server, "lora/unload", "sk-pirate", lora="parrot").status_code == 403


def test_a_batch_of_an_adapter(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--files-dir", str(tmp_path / "files"), "--lora", "parrot")
    client = server.openai()
    body = {"model": "parrot", **SHORT}
    lines = [line(str(number), url="/v1/completions", body=body) for number in range(20)]
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    while batch.status not in ("completed", "failed", "expired"):
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is not None, batch
    said = client.files.content(batch.output_file_id).text
    assert said.count(f'"text":"{PARROT}"') == 20


def test_signed_ones_only(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    for command in (
        ["key", "pair", str(key)],
        *(["sign", str(store / one), "--key", str(key)] for one in ("tiny", "parrot")),
    ):
        assert CliRunner().invoke(cli, command).exception is None
    checked = CliRunner().invoke(cli, ["verify", str(store / "parrot"), "--key", f"{key}.pub"])
    assert f"exported for tiny: 1 file, signed with the other half of {key}.pub" in checked.output
    server = serve("--require-signature", f"{key}.pub", "--lora", "parrot")
    assert text(server, "parrot") == PARROT
    status, message = refusal(post(server, "lora/load", lora="raven"))
    assert (status, "raven is not signed" in message) == (409, True)
    (store / "parrot" / "adapter.json").write_text("{")
    engine_of(server).kill()
    until(lambda: "no longer has the adapter parrot" in server.log())
    assert "adapter.json was changed" in server.log()
    assert text(server, "tiny") == SENTENCE
    assert names(server) == ["tiny"]
