"""openai-python's files and batches, as its users call them, over a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch

from tests.jobs.making import CHAT, Json, jsonl, line, parsed
from tests.sdk.conftest import KEY
from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle, write_testing_encoder

EMBEDDINGS = "/v1/embeddings"
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `tiny`, slowly, and `embedder`, behind a key."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [write_testing_bundle(folder, slots=8, step_seconds=0.002, max_context=4096)]
    bundles.append(write_testing_encoder(folder, name="embedder"))
    with Server(
        bundles, ["--files-dir", str(folder / "files"), "--files-key-quota-bytes", "10000000"], api_key=KEY
    ) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with server.openai() as client:
        yield client


def ended(client: OpenAI, batch: Batch) -> Batch:
    """Asks again and again, as clients do."""
    while batch.status not in ENDED:
        batch = client.batches.retrieve(batch.id)
    return batch


def begun(client: OpenAI, lines: list[Json], endpoint: Any = CHAT, **options: Any) -> Batch:
    file = client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options)


def lines_of(client: OpenAI, name: str | None) -> list[Json]:
    return parsed(client.files.content(name).content) if name else []


def chat(custom_id: str, text: str, **more: Any) -> Json:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0}
    return line(custom_id, body=body | more)


def test_files(client: OpenAI, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_bytes(b'{"a": 1}\n')
    file = client.files.create(
        file=tmp_path / "some.jsonl",
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.filename, file.bytes, file.purpose, file.status) == (
        "some.jsonl",
        9,
        "user_data",
        "processed",
    )
    assert file.expires_at == file.created_at + 3600
    assert client.files.wait_for_processing(file.id) == client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == b'{"a": 1}\n'
    others = [client.files.create(file=b"x", purpose="evals") for _ in range(5)]
    listed = list(client.files.list(purpose="evals", limit=2, order="asc"))  # three pages
    assert listed == others
    for one in (file, *others):
        assert client.files.delete(one.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_quota(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=b"x" * 10_000_001, purpose="user_data")
    assert (caught.value.status_code, caught.value.code) == (413, "storage_quota_exceeded")  # type: ignore[attr-defined]


def test_a_batch(client: OpenAI) -> None:
    asked = [chat("greeting", "Hello"), chat("too much", "Hello", max_tokens=10_000), chat("bad", "Hi", n=-1)]
    batch = begun(client, asked, metadata={"for": "a test"})
    assert (batch.status, batch.endpoint, batch.metadata) == ("validating", CHAT, {"for": "a test"})
    assert batch.expires_at == batch.created_at + 86400
    batch = ended(client, batch)
    assert (batch.status, batch.model, batch.metadata) == ("completed", "tiny", {"for": "a test"})
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 2}
    (right,) = lines_of(client, batch.output_file_id)
    assert right["custom_id"] == "greeting"
    assert right["response"]["status_code"] == 200
    assert right["response"]["request_id"].startswith("req_")
    assert right["response"]["body"]["choices"][0]["message"]["content"] == SENTENCE
    assert batch.usage is not None
    assert batch.usage.total_tokens == right["response"]["body"]["usage"]["total_tokens"]
    wrong = {one["custom_id"]: one["response"] for one in lines_of(client, batch.error_file_id)}
    assert set(wrong) == {"too much", "bad"}
    assert wrong["too much"]["body"]["error"]["code"] == "context_length_exceeded"
    assert {one["status_code"] for one in wrong.values()} == {400}
    assert client.files.retrieve(batch.output_file_id or "").purpose == "batch_output"
    assert client.batches.list(limit=1).data == [batch]
    assert next(iter(client.batches.list(limit=1))).id == batch.id


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 3}, "choices"),
        ("/v1/responses", {"model": "tiny", "input": "hello"}, "output"),
        (EMBEDDINGS, {"model": "embedder", "input": ["hello", "the user"]}, "data"),
        ("/v1/rerank", {"model": "embedder", "query": "hello", "documents": ["the user"]}, "results"),
    ],
)
def test_every_endpoint(client: OpenAI, endpoint: str, body: Json, field: str) -> None:
    batch = ended(client, begun(client, [line("a", url=endpoint, body=body)], endpoint))
    (answer,) = lines_of(client, batch.output_file_id)
    direct: Any = client.post(endpoint.removeprefix("/v1"), body=body, cast_to=object)
    assert len(answer["response"]["body"][field]) == len(direct[field]) > 0
    assert batch.usage is not None
    assert batch.usage.input_tokens > 0


def test_a_file_that_is_none(client: OpenAI) -> None:
    batch = ended(client, begun(client, [chat("a", "x"), chat("a", "x"), chat("b", "x") | {"url": "/v1/x"}]))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None
    assert [(one.line, one.code, one.param) for one in batch.errors.data or []] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "url_mismatch", "url"),
    ]


def test_a_model_for_something_else(client: OpenAI) -> None:
    batch = ended(client, begun(client, [line("a", body={"model": "embedder", "messages": []})]))
    assert batch.errors is not None
    (error,) = batch.errors.data or []
    assert error.message == "The model 'embedder' makes embeddings; ask for one that generates text: tiny."


def test_cancelling(client: OpenAI) -> None:
    batch = begun(client, [chat(f"{i}", "x", max_tokens=3000, ignore_eos=True) for i in range(50)])
    while batch.status != "in_progress":
        batch = client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    running = begun(client, [chat("a", "x", max_tokens=3000, ignore_eos=True)])
    with pytest.raises(openai.BadRequestError, match="The file is the input of") as caught:
        client.files.delete(running.input_file_id)
    assert caught.value.code == "file_in_use"
    client.batches.cancel(running.id)
    ended(client, running)
    assert client.files.delete(running.input_file_id).deleted


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {f"{i}": "v" for i in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
def test_batches_that_are_refused(client: OpenAI, changes: Json, param: str) -> None:
    file = client.files.create(file=b"x", purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | changes
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**asked)
    assert caught.value.param == param


def test_batches_of_what_is_not_there(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="No such file: 'file-abc'") as caught:
        client.batches.create(input_file_id="file-abc", endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"
    with pytest.raises(openai.NotFoundError, match="No such batch: 'batch_abc'"):
        client.batches.retrieve("batch_abc")
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_abc")


def test_keys_hold_for_batches(tmp_path: Path) -> None:
    """What one key has, another does not see, and lines may ask for what their key may."""
    keys = tmp_path / "keys"
    keys.write_text("alice  models=tiny\nbob  models=embedder\n")
    bundles = [write_testing_bundle(tmp_path), write_testing_encoder(tmp_path, name="embedder")]
    flags = ["--files-dir", str(tmp_path / "files"), "--api-key-file", str(keys)]
    with Server(bundles, flags, api_key="alice") as server, server.openai() as alice:
        bob = alice.with_options(api_key="bob")
        hers = ended(alice, begun(alice, [chat("hers", "Hello")]))
        assert [one["custom_id"] for one in lines_of(alice, hers.output_file_id)] == ["hers"]
        his = ended(bob, begun(bob, [chat("not his", "Hello")]))
        assert his.status == "failed"
        assert his.errors is not None
        assert [(one.code, one.line) for one in his.errors.data or []] == [("model_not_found", 1)]
        assert bob.batches.list().data == [his]
        for ask in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                ask(hers.id)
        for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(hers.output_file_id or "")


async def test_two_thousand_lines_while_others_chat(server: Server) -> None:
    """All of them are answered, and every chat meanwhile."""
    asked = [
        line(f"{i}", url=EMBEDDINGS, body={"model": "embedder", "input": f"hello {i}"}) for i in range(2000)
    ]
    talked = [chat(f"{i}", "hello", max_tokens=8) for i in range(300)]
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        batches = []
        for lines, endpoint in ((asked, EMBEDDINGS), (talked, CHAT)):
            file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
            batches.append(
                await client.batches.create(
                    input_file_id=file.id,
                    endpoint=endpoint,
                    completion_window="24h",  # type: ignore[arg-type]
                )
            )
        over = asyncio.Event()

        async def converse() -> int:
            said = 0
            while not over.is_set():
                stream = await client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": "Hi"}], temperature=0, stream=True
                )
                assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SENTENCE
                said += 1
            return said

        talks = [asyncio.create_task(converse()) for _ in range(2)]
        seen: list[int] = []
        for number, batch in enumerate(batches):
            while batch.status not in ENDED:
                batch = await client.batches.retrieve(batch.id)
                seen.append(batch.request_counts.completed if batch.request_counts and not number else 0)
            batches[number] = batch
        over.set()
        assert all(said > 0 for said in await asyncio.gather(*talks))
        outputs = [await client.files.content(batch.output_file_id or "") for batch in batches]
    assert [batch.status for batch in batches] == ["completed"] * 2
    assert [one["custom_id"] for one in parsed(outputs[0].content)] == [one["custom_id"] for one in asked]
    assert [one["custom_id"] for one in parsed(outputs[1].content)] == [one["custom_id"] for one in talked]
    assert any(0 < count < 2000 for count in seen)  # progress was told


def test_a_real_model(minilm_fp32: Path, tmp_path: Path) -> None:
    """The vectors of a batch are those that a request gets."""
    texts = ["The sky is blue.", "Grass is green.", "Two and two are four."] * 10
    with Server([minilm_fp32], ["--files-dir", str(tmp_path / "files")]) as server, server.openai() as client:
        name = minilm_fp32.name
        lines = [
            line(f"{i}", url=EMBEDDINGS, body={"model": name, "input": text, "encoding_format": "float"})
            for i, text in enumerate(texts)
        ]
        batch = ended(client, begun(client, lines, EMBEDDINGS))
        answers = lines_of(client, batch.output_file_id)
        vectors = [one["response"]["body"]["data"][0]["embedding"] for one in answers]
        direct = client.embeddings.create(model=name, input=texts, encoding_format="float")
    assert len(vectors) == 30
    for vector, one in zip(vectors, direct.data, strict=True):
        assert sum(a * b for a, b in zip(vector, one.embedding, strict=True)) == pytest.approx(1, abs=1e-4)
    assert json.loads(batch.to_json())["usage"]["input_tokens"] == direct.usage.prompt_tokens
