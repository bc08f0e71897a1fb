"""Adapters over HTTP, through supervisor and engine: loaded, listed, asked, kept over a crash, unloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

from basert.cli.serve import command
from basert.errors import BasertError
from tests.serving import Server
from tests.tiny import PARROT, SENTENCE, write_testing_adapter, write_testing_bundle


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, which takes adapters, with three of them, and `plain`, which takes none, with `stranger`."""
    folder = tmp_path_factory.mktemp("s")
    base = write_testing_bundle(folder, lora=True, step_seconds=0.005, slots=8, max_context=20_000)
    write_testing_bundle(folder, name="plain")
    other = write_testing_bundle(folder, name="other", lora=True)
    for number, name in enumerate(("parrot", "raven", "owl"), 1):
        write_testing_adapter(folder, base, name=name, number=number, units=1 << number)
    write_testing_adapter(folder, other, name="stranger")
    return folder


@pytest.fixture
def server(store: Path) -> Iterator[Server]:
    flags = ["--lora", "parrot", "--max-loras", "2"]
    with Server(["tiny", "plain"], flags, env={"BASERT_HOME": str(store)}) as running:
        yield running


def say(client: openai.OpenAI, model: str) -> str:
    answer = client.completions.create(model=model, prompt="hello", temperature=0, max_tokens=60)
    assert answer.model == model.rpartition(":")[2]
    return answer.choices[0].text


def post(client: openai.OpenAI, path: str, **body: str) -> dict[str, object]:
    answer: dict[str, object] = client.post(path, cast_to=dict, body=body)  # type: ignore[type-var]
    return answer


def test_an_adapter_is_loaded_listed_asked_for_and_unloaded(server: Server) -> None:
    client = server.openai(max_retries=0)
    cards = {card.id: getattr(card, "parent", None) for card in client.models.list()}
    assert cards == {"tiny": None, "parrot": "tiny", "plain": None}
    assert client.models.retrieve("tiny:parrot").parent == "tiny"  # type: ignore[attr-defined]
    assert [say(client, model) for model in ("tiny", "parrot", "tiny:parrot")] == [SENTENCE, PARROT, PARROT]
    loaded = post(client, "/lora/load", lora="raven")
    assert loaded == {"id": "raven", "object": "lora", "parent": "tiny", "loaded": True}
    assert say(client, "raven") == PARROT
    post(client, "/lora/load", lora="raven", model="tiny")  # once more: nothing to do
    assert post(client, "/lora/unload", lora="raven")["loaded"] is False
    with pytest.raises(openai.NotFoundError, match="'raven'"):
        say(client, "raven")
    assert say(client, "parrot") == PARROT


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("load", {"lora": "eagle"}, 404, "store has no adapter 'eagle'; it has"),
        ("load", {"lora": "parot"}, 404, "did you mean parrot?"),
        ("load", {"lora": "../parrot"}, 400, "is no name for a bundle"),
        ("load", {"lora": "raven", "model": "plain"}, 400, "plain was exported without a graph for adapters"),
        ("load", {"lora": "raven", "model": "nobody"}, 404, "The model 'nobody' is not loaded"),
        ("load", {"lora": "stranger"}, 400, "was made for other, which is not served here"),
        ("load", {"lora": "stranger", "model": "tiny"}, 400, "was made for other, not for tiny"),
        ("load", {}, 400, "lora"),
        ("unload", {"lora": "owl"}, 404, "The model 'owl' is not served here"),
        ("unload", {"lora": "tiny"}, 400, "tiny is a model, not an adapter"),
    ],
)
def test_what_cannot_be_is_answered_with_one_sentence(
    server: Server, path: str, body: dict[str, str], status: int, told: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=told.replace("?", r"\?")) as caught:
        post(server.openai(max_retries=0), f"/lora/{path}", **body)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert caught.value.body.keys() == {"message", "type", "param", "code"}


def test_more_than_there_is_room_for_are_refused(server: Server) -> None:
    client = server.openai(max_retries=0)
    post(client, "/lora/load", lora="owl")
    with pytest.raises(openai.ConflictError, match="larger --max-loras"):
        post(client, "/lora/load", lora="raven")
    post(client, "/lora/unload", lora="parrot")
    post(client, "/lora/load", lora="raven")
    assert say(client, "raven") == PARROT


def test_the_names_that_vllm_has(server: Server) -> None:
    client = server.openai(max_retries=0)
    done = client.post("/load_lora_adapter", cast_to=str, body={"lora_name": "raven", "lora_path": "raven"})
    assert done == "Success: LoRA adapter 'raven' added successfully."
    assert say(client, "raven") == PARROT
    done = client.post("/unload_lora_adapter", cast_to=str, body={"lora_name": "raven"})
    assert done == "Success: LoRA adapter 'raven' removed successfully."
    with pytest.raises(openai.BadRequestError, match="from the model store by name"):
        client.post("/load_lora_adapter", cast_to=str, body={"lora_name": "raven", "lora_path": "/etc"})


async def ask_on(client: openai.AsyncOpenAI) -> None:
    """Until the engine has heard that the adapter is to go."""
    while True:
        await client.completions.create(model="parrot", prompt="hello", max_tokens=1)


async def test_unloading_waits_for_open_streams(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        body = {"model": "parrot", "prompt": "hello", "max_tokens": 300}
        stream = await client.completions.create(**body, stream=True, extra_body={"ignore_eos": True})  # type: ignore[call-overload]
        chunks = [await anext(stream)]
        ask = client.post("/lora/unload", cast_to=dict, body={"lora": "parrot"})
        unloading = asyncio.create_task(ask)
        with pytest.raises(openai.NotFoundError, match="'parrot' is not"):
            await ask_on(client)
        assert not unloading.done()
        chunks += [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        assert (await unloading)["loaded"] is False


def test_an_engine_that_crashed_has_its_adapters_again(server: Server) -> None:
    client = server.openai(max_retries=0)
    post(client, "/lora/load", lora="raven")
    with pytest.raises(openai.APIError):
        client.completions.create(model="tiny", prompt="CRASH")
    patient = server.openai(max_retries=10)
    assert [say(patient, model) for model in ("raven", "parrot", "tiny")] == [PARROT, PARROT, SENTENCE]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["tiny", "--lora", "eagle"], "there is no adapter 'eagle'"),
        (["tiny", "--lora", "stranger"], "was made for other, not for tiny"),
        (["plain", "--lora", "parrot"], "plain was exported without a graph for adapters"),
        (
            ["tiny", "--lora", "parrot", "--lora", "owl", "--max-loras", "1"],
            "more adapters than --max-loras 1",
        ),
        (["tiny", "--lora", "parrot", "--lora", "parrot"], "two of the name parrot"),
        (["tiny", "--lora", "parrot", "--served-model-name", "parrot"], "two of the name parrot"),
    ],
)
def test_what_serve_refuses_before_it_starts(store: Path, flags: list[str], told: str) -> None:
    with pytest.raises(BasertError) as caught:
        CliRunner().invoke(command, flags, env={"BASERT_HOME": str(store)}, catch_exceptions=False)
    assert told in caught.value.message
