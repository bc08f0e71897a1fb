"""Models that are unloaded while nobody wants them, and come back for whoever does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from basert.client import Client, RequestFailed
from tests.processes.live import engines_of, open_streams, until
from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle

SHORT = {"prompt": "hello", "temperature": 0, "max_tokens": 200}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_testing_bundle(tmp_path, step_seconds=0.01, max_context=20_000)
    for name in ("one", "two"):
        write_testing_bundle(tmp_path, name=name, step_seconds=0.002)
    return tmp_path


@pytest.fixture
def sleepy(store: Path, run_dir: Path) -> Iterator[Server]:
    """Falls asleep after a fifth of a second."""
    flags = ["--run-dir", str(run_dir), "--idle-timeout", "0.2", "--workers", "2"]
    with Server(["tiny"], flags, env={"BASERT_HOME": str(store)}) as server:
        yield server


@pytest.fixture
def narrow(store: Path, run_dir: Path) -> Iterator[Server]:
    """Three models, and room for two."""
    flags = ["--run-dir", str(run_dir), "--max-loaded", "2", "--workers", "2"]
    with Server(["tiny", "one", "two"], flags, env={"BASERT_HOME": str(store)}) as server:
        yield server


async def _states(client: Client) -> dict[str, str]:
    cards = {card.id: await client.get(f"/v1/models/{card.id}") for card in await client.models()}
    return {
        name: card.partition(b'"status":"')[2].partition(b'"')[0].decode() for name, card in cards.items()
    }


async def _asleep(client: Client, model: str = "tiny") -> bool:
    return (await _states(client))[model] == "asleep"


async def _text(client: Client, model: str) -> str:
    answer = await client.post("/v1/completions", {"model": model, **SHORT})
    text: str = answer["choices"][0]["text"]
    return text


async def test_it_sleeps_and_its_next_requests_wake_it_once(sleepy: Server) -> None:
    """Requests that come together, through both workers, wait for one engine."""
    async with (
        Client(sleepy.url) as client,
        AsyncOpenAI(base_url=f"{sleepy.url}/v1", api_key="none", max_retries=0) as openai,
    ):
        for turn in range(2):
            await until(lambda: _asleep(client))
            while engines_of(sleepy, "tiny"):  # it is told first, then done
                await asyncio.sleep(0.01)
            assert b'"status":"ready"' in await client.get("/readyz")
            asked = [openai.completions.create(model="tiny", **SHORT) for _ in range(8)]  # type: ignore[call-overload]
            answers = await asyncio.gather(*asked)
            assert {answer.choices[0].text for answer in answers} == {SENTENCE}
            assert sleepy.log().count("] ready after") == 2 + turn


async def test_what_is_in_use_stays_awake(sleepy: Server) -> None:
    async with Client(sleepy.url) as client:
        (stream,) = await open_streams(client, 1, max_tokens=150)  # ten times as long as the patience
        (engine,) = engines_of(sleepy, "tiny")
        assert await stream.end() is None
        assert engines_of(sleepy, "tiny") == [engine]
        await until(lambda: _asleep(client))


async def test_being_looked_at_is_no_use(sleepy: Server) -> None:
    async with Client(sleepy.url) as client:
        await until(lambda: _asleep(client))  # which asks for it all the time


async def test_a_sleeper_that_cannot_be_woken_is_tried_at_each_request(sleepy: Server, store: Path) -> None:
    async with Client(sleepy.url) as client:
        await until(lambda: _asleep(client))
        (store / "tiny" / "golden").rename(store / "golden")
        with pytest.raises(RequestFailed, match=r"tiny/golden/decoder\.json is missing") as refused:
            await _text(client, "tiny")
        assert (refused.value.http_status, refused.value.code) == (503, "model_failed")
        assert b'"status":"ready"' in await client.get("/readyz")
        (store / "golden").rename(store / "tiny" / "golden")
        assert await _text(client, "tiny") == SENTENCE


async def test_a_wait_for_a_sleeper_ends_with_the_requests_time(store: Path, run_dir: Path) -> None:
    write_testing_bundle(store, name="slow", load_seconds=2.0)
    flags = ["--run-dir", str(run_dir), "--idle-timeout", "0.2", "--request-timeout", "0.5"]
    with Server(["slow"], flags, env={"BASERT_HOME": str(store)}) as server:
        async with Client(server.url) as client:
            await until(lambda: _asleep(client, "slow"))
            with pytest.raises(RequestFailed, match=r"not done within 0\.5 seconds") as late:
                await _text(client, "slow")
            assert late.value.http_status == 408


async def test_another_bundle_in_a_sleepers_place(sleepy: Server, store: Path) -> None:
    async with Client(sleepy.url) as client:
        await until(lambda: _asleep(client))
        aside = write_testing_bundle(store / ".new", sentence=" Jump!")
        shutil.rmtree(store / "tiny")
        aside.rename(store / "tiny")
        with pytest.raises(
            RequestFailed, match="tiny was exported again and is being loaded; try again"
        ) as told:
            await _text(client, "tiny")
        assert told.value.http_status == 503  # with Retry-After: clients do
        async with AsyncOpenAI(base_url=f"{sleepy.url}/v1", api_key="none", max_retries=20) as openai:
            answer = await openai.completions.create(model="tiny", **SHORT)  # type: ignore[call-overload]
        assert answer.choices[0].text == " Jump!"


async def test_an_order_takes_another_bundle_in_a_sleepers_place(sleepy: Server, store: Path) -> None:
    async with Client(sleepy.url) as client:
        await until(lambda: _asleep(client))
        aside = write_testing_bundle(store / ".new", sentence=" Jump!")
        shutil.rmtree(store / "tiny")
        aside.rename(store / "tiny")
        await client.post("/v1/models/load", {"model": "tiny"})
        assert await _text(client, "tiny") == " Jump!"


async def test_the_longest_unused_makes_room(narrow: Server) -> None:
    async with Client(narrow.url) as client:
        assert await _states(client) == {"tiny": "ready", "one": "ready", "two": "asleep"}
        assert await _text(client, "tiny") == SENTENCE
        assert await _text(client, "two") == SENTENCE
        assert await _states(client) == {"tiny": "ready", "one": "asleep", "two": "ready"}
        assert await _text(client, "one") == SENTENCE
        assert await _states(client) == {"tiny": "asleep", "one": "ready", "two": "ready"}
        assert b'"status":"ready"' in await client.get("/readyz")


async def test_there_is_no_room_while_all_are_in_use(narrow: Server, store: Path) -> None:
    write_testing_bundle(store, name="fourth")
    full = "--max-loaded is 2, and tiny, one are in use; try again later, or unload one."
    async with Client(narrow.url) as client, asyncio.TaskGroup() as group:
        streams = await open_streams(client, 1)
        one = group.create_task(_text_of_many(client, "one"))
        await until(lambda: _has_begun(client, "one"))
        with pytest.raises(RequestFailed) as busy:
            await _text(client, "two")
        assert (busy.value.http_status, busy.value.code) == (503, "no_room")
        assert str(busy.value) == f"two finds no room: {full}"
        with pytest.raises(RequestFailed) as refused:
            await client.post("/v1/models/load", {"model": "fourth"})
        assert (refused.value.http_status, str(refused.value)) == (409, f"fourth finds no room: {full}")
        assert await _text(client, "one") == SENTENCE  # nothing was taken from those
        assert streams[0].error is None
        one.cancel()
        await until(lambda: _answers(client, "two"))
        await streams[0].leave()


async def _text_of_many(client: Client, model: str) -> None:
    body = {"model": model, "prompt": ["hello"] * 200, "ignore_eos": True, "max_tokens": 200}
    await client.post("/v1/completions", body)


async def _has_begun(client: Client, model: str) -> bool:
    return (
        f'basert_running_requests{{model="{model}",replica="0"}} 0.0'
        not in (await client.get("/metrics")).decode()
    )


async def _answers(client: Client, model: str) -> bool:
    try:
        return await _text(client, model) == SENTENCE
    except RequestFailed as error:
        assert error.code == "no_room"  # noqa: PT017
        return False


async def test_a_load_makes_room_and_a_swap_counts_what_it_replaces_once(narrow: Server, store: Path) -> None:
    write_testing_bundle(store, name="fourth")
    async with Client(narrow.url) as client:
        await client.post("/v1/models/load", {"model": "fourth"})
        states = await _states(client)
        assert sorted(states.values()) == ["asleep", "asleep", "ready", "ready"]
        assert states["fourth"] == "ready"
        await client.post("/v1/models/unload", {"model": "fourth"})
        (awake,) = (name for name, state in states.items() if state == "ready" and name != "fourth")
        assert await _text(client, "two") == SENTENCE
        aside = write_testing_bundle(store / ".new", name=awake, sentence=" Jump!")
        shutil.rmtree(store / awake)
        aside.rename(store / awake)
        await client.post("/v1/models/swap", {"alias": awake, "model": awake})
        after = await _states(client)
        assert (after[awake], after["two"]) == ("ready", "ready")  # two did not have to go for it


async def test_it_sleeps_again_after_many_turns_and_leaves_nothing(sleepy: Server, run_dir: Path) -> None:
    async with Client(sleepy.url) as client:
        for _ in range(5):
            await until(lambda: _asleep(client))
            assert await _text(client, "tiny") == SENTENCE
        await until(lambda: _asleep(client))
    while engines_of(sleepy, "tiny"):
        await asyncio.sleep(0.01)
    assert [path.name for path in run_dir.rglob("*.sock")] == ["control.sock"]
    assert len(httpx.get(f"{sleepy.url}/v1/models").json()["data"]) == 1
