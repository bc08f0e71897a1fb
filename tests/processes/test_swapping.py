"""A name that comes to mean another model, or a new build of its own, while clients use it."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from basert.client import Client
from basert.manifest import digest
from basert.schema import fingerprint
from tests.processes.live import engines_of, open_streams
from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle

OTHER = " Jump, wizards!"
SHORT = {"prompt": "hello", "temperature": 0, "max_tokens": 200}
CLIENTS = 12
WORKERS = 2


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_testing_bundle(tmp_path, step_seconds=0.002, slots=8, max_context=20_000)
    write_testing_bundle(tmp_path, name="next", step_seconds=0.002, slots=8, sentence=OTHER)
    write_testing_bundle(tmp_path, name="bad", load_error="It is made of cheese.")
    return tmp_path


@pytest.fixture
def server(store: Path, run_dir: Path) -> Iterator[Server]:
    flags = ["--run-dir", str(run_dir), "--alias", "chat=tiny", "--workers", str(WORKERS)]
    with Server(["tiny"], flags, env={"BASERT_HOME": str(store)}) as server:
        yield server


def _export_again(store: Path, name: str, sentence: str) -> None:
    """As an exporter does: written aside, renamed last."""
    aside = write_testing_bundle(store / ".new", name=name, step_seconds=0.002, slots=8, sentence=sentence)
    shutil.rmtree(store / name)
    aside.rename(store / name)


def _post(server: Server, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


class Load:
    """Clients that ask without a pause, streamed and not; what they heard, by build and text."""

    def __init__(self, server: Server, model: str) -> None:
        self.heard: Counter[tuple[str, str]] = Counter()
        self.over = False
        self._client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        self._model = model
        self._tasks = [asyncio.create_task(self._ask(stream=n % 2 == 0)) for n in range(CLIENTS)]

    async def end(self) -> None:
        """Raises what a client met."""
        self.over = True
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def until(self, build: str, count: int = 3 * CLIENTS) -> None:
        while sum(number for (one, _), number in self.heard.items() if one == build) < count:
            for task in self._tasks:
                assert not task.done(), await task  # type: ignore[func-returns-value]
            await asyncio.sleep(0.01)

    async def _ask(self, *, stream: bool) -> None:
        ask = self._client.completions.create
        while not self.over:
            if stream:
                chunks = [one async for one in await ask(model=self._model, stream=True, **SHORT)]  # type: ignore[call-overload]
                text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
                builds = {chunk.system_fingerprint for chunk in chunks}
                assert len(builds) == 1
                self.heard[builds.pop(), text] += 1
            else:
                answer = await ask(model=self._model, **SHORT)  # type: ignore[call-overload]
                self.heard[answer.system_fingerprint, answer.choices[0].text] += 1


async def _swapped_under_load(
    server: Server, store: Path, alias: str, name: str, before: str
) -> Counter[tuple[str, str]]:
    load = Load(server, alias)
    await load.until(before)
    swapped = await asyncio.to_thread(_post, server, "/v1/models/swap", alias=alias, model=name)
    after = fingerprint(digest(store / name))
    assert (swapped.status_code, swapped.json()["id"], swapped.json()["system_fingerprint"]) == (
        200,
        alias,
        after,
    )
    await load.until(after)
    await load.end()
    return load.heard


async def test_no_request_fails_while_an_alias_is_swapped(server: Server, store: Path) -> None:
    (old,), before = engines_of(server, "tiny"), fingerprint(digest(store / "tiny"))
    heard = await _swapped_under_load(server, store, "chat", "next", before)
    assert set(heard) == {(before, SENTENCE), (fingerprint(digest(store / "next")), OTHER)}
    assert not old.is_running()
    assert _post(server, "/v1/completions", model="tiny", **SHORT).status_code == 404


async def test_nor_while_a_model_is_replaced_by_its_next_build(server: Server, store: Path) -> None:
    """Three times, so that a build that came by a swap goes by one."""
    before, texts = digest(store / "tiny"), [SENTENCE]
    for sentence in (OTHER, " The world!", SENTENCE):
        (old,) = engines_of(server, "tiny")
        _export_again(store, "tiny", sentence)
        heard = await _swapped_under_load(server, store, "tiny", "tiny", fingerprint(before))
        after = digest(store / "tiny")
        assert set(heard) == {(fingerprint(before), texts[-1]), (fingerprint(after), sentence)}
        assert not old.is_running()
        texts, before = [*texts, sentence], after
    listed = {card.id: card for card in server.openai().models.list()}
    assert set(listed) == {"tiny", "chat"}  # the alias has come along


async def test_requests_that_have_begun_go_on_with_the_old_one(server: Server) -> None:
    async with Client(server.url) as client:
        streams = await open_streams(client, 3, max_tokens=600)
        (old,) = engines_of(server, "tiny")
        await client.post("/v1/models/swap", {"alias": "chat", "model": "next"})
        assert [await stream.end() for stream in streams] == [None] * 3
        assert not old.is_running()


async def test_a_swap_that_fails_changes_nothing(server: Server, store: Path) -> None:
    before = fingerprint(digest(store / "tiny"))
    load = Load(server, "chat")
    await load.until(before)
    failed = await asyncio.to_thread(_post, server, "/v1/models/swap", alias="chat", model="bad")
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "load_failed")
    assert failed.json()["error"]["message"] == "bad cannot be loaded: It is made of cheese."
    heard = sum(load.heard.values())
    await load.until(before, heard + CLIENTS)
    await load.end()
    assert set(load.heard) == {(before, SENTENCE)}
    assert engines_of(server, "bad") == []
    assert [card.id for card in server.openai().models.list()] == ["tiny", "chat"]


async def test_progress_of_what_is_to_follow(server: Server, store: Path) -> None:
    write_testing_bundle(store, name="slow", load_seconds=1.0)
    swapping = asyncio.create_task(
        asyncio.to_thread(_post, server, "/v1/models/swap", alias="chat", model="slow")
    )
    async with httpx.AsyncClient(base_url=server.url) as client:
        while "next" not in (card := (await client.get("/v1/models/chat")).json()):
            await asyncio.sleep(0.01)
        assert card["status"] == "ready"
        assert (card["next"]["id"], card["next"]["status"]) == ("slow", "loading")
        assert (await client.get("/readyz")).status_code == 200
        again = await client.post("/v1/models/swap", json={"alias": "chat", "model": "slow"})
        assert (again.status_code, again.json()["error"]["message"]) == (
            409,
            "slow is being loaded already; wait for that.",
        )
    assert (await swapping).status_code == 200


def test_what_another_alias_means_stays(server: Server) -> None:
    """chat and tiny mean one model; a third name of it keeps it when chat goes elsewhere."""
    assert _post(server, "/v1/models/load", model="next").status_code == 200
    assert _post(server, "/v1/models/swap", alias="chat", model="next").status_code == 200
    assert engines_of(server, "tiny") == []
    assert len(engines_of(server, "next")) == 1  # that was loaded before: it is not loaded twice
    assert _post(server, "/v1/models/swap", alias="chat", model="tiny").status_code == 200
    assert [card.id for card in server.openai().models.list()] == ["tiny", "chat"]


def test_a_swap_to_what_it_means_already_changes_nothing(server: Server) -> None:
    (engine,) = engines_of(server, "tiny")
    assert _post(server, "/v1/models/swap", alias="chat", model="tiny").status_code == 200
    assert engines_of(server, "tiny") == [engine]


def test_a_name_that_nobody_knows(server: Server) -> None:
    refused = _post(server, "/v1/models/swap", alias="talk", model="next")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert refused.json()["error"]["message"] == (
        "The model 'talk' is not loaded; this server has tiny, chat."
    )


def test_a_model_served_under_another_name(store: Path, run_dir: Path) -> None:
    """What --served-model-name calls it outlives the build."""
    flags = ["--run-dir", str(run_dir), "--served-model-name", "org/model"]
    with Server(["tiny"], flags, env={"BASERT_HOME": str(store)}) as server:
        _export_again(store, "tiny", OTHER)
        for alias in ("org/model", "tiny"):
            assert _post(server, "/v1/models/swap", alias=alias, model="tiny").status_code == 200
            answer = _post(server, "/v1/completions", model="org/model", **SHORT).json()
            assert (answer["model"], answer["choices"][0]["text"]) == ("org/model", OTHER)
        assert [card.id for card in server.openai().models.list()] == ["org/model", "tiny"]


async def test_a_dead_engines_bundle_that_was_exported_again(server: Server, store: Path) -> None:
    """What its successor would load has another tokenizer than the workers have: it is a new build."""
    _export_again(store, "tiny", OTHER)
    engines_of(server, "tiny")[0].kill()
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=20) as client:
        answer = await client.completions.create(model="chat", **SHORT)  # type: ignore[call-overload]
    assert (answer.choices[0].text, answer.system_fingerprint) == (OTHER, fingerprint(digest(store / "tiny")))
    assert "tiny was exported again; the new bundle takes its place" in server.log()
    assert len(engines_of(server, "tiny")) == 1
