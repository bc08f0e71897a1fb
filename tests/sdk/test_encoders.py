"""The official clients, unchanged, against a real server of encoders; and what only a real one shows."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from basert import text
from engines.sessions.testing import EncoderScript, values_of
from tests.javascript import run_node_tests
from tests.serving import Server
from tests.tiny import write_testing_bundle, write_testing_encoder

SCRIPT = EncoderScript(width=8, shapes=[], normalised=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_testing_encoder(tmp_path_factory.mktemp("bundles"), name="encoder", truncatable=[4])


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    """`encoder`, `ranker` and the chat model `tiny`."""
    ranker = write_testing_encoder(bundle.parent, name="ranker", task="classification", token_types=True)
    with Server([bundle, ranker, write_testing_bundle(bundle.parent)], ("--batch-wait", "2")) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with server.openai(max_retries=0) as client:
        yield client


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def words(bundle: Path) -> text.TextModel:
    return text.load(bundle)


def vectors(words: text.TextModel, texts: list[str]) -> np.ndarray:
    return np.array([values_of(SCRIPT, words.encode(text)) for text in texts])


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}])
def test_embeddings(client: OpenAI, words: text.TextModel, form: dict[str, Any]) -> None:
    """Without a form the client asks for base64, and reads it."""
    texts = [f"hello {n} the world"[: 6 + n % 12] for n in range(300)]
    answer = client.embeddings.create(model="encoder", input=texts, **form)
    assert [one.index for one in answer.data] == list(range(300))
    told = np.array([one.embedding for one in answer.data], np.float32)
    assert np.allclose(told, vectors(words, texts), atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == words.encode_batch(texts).tokens


def test_base64_as_it_is(client: OpenAI, words: text.TextModel) -> None:
    answer = client.embeddings.create(model="encoder", input="hello", encoding_format="base64")
    raw = base64.b64decode(answer.data[0].embedding)
    assert np.allclose(np.frombuffer(raw, "<f4"), vectors(words, ["hello"])[0], atol=1e-6)


def test_ids_and_dimensions(client: OpenAI, words: text.TextModel) -> None:
    ids = words.encode("hello")
    answer = client.embeddings.create(model="encoder", input=[ids, ids], dimensions=4)
    full = vectors(words, ["hello"])[0][:4]
    assert np.allclose(answer.data[1].embedding, full / np.linalg.norm(full), atol=1e-6)


async def test_async_clients_together(server: Server, words: text.TextModel) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        texts = [[f"hello {n}", "the user"] for n in range(40)]
        ask = client.embeddings.create
        answers = await asyncio.gather(*(ask(model="encoder", input=one) for one in texts))
    for one, answer in zip(texts, answers, strict=True):
        assert np.allclose([data.embedding for data in answer.data], vectors(words, one), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"input": []}, openai.BadRequestError),
        ({"input": ""}, openai.BadRequestError),
        ({"input": "hello " * 200}, openai.BadRequestError),
        ({"dimensions": 3}, openai.BadRequestError),
        ({"model": "tiny"}, openai.BadRequestError),
        ({"model": "nothing"}, openai.NotFoundError),
    ],
)
def test_refusals(client: OpenAI, change: dict[str, Any], error: type[openai.APIStatusError]) -> None:
    with pytest.raises(error) as raised:
        client.embeddings.create(**{"model": "encoder", "input": "hello", **change})
    assert raised.value.request_id
    assert raised.value.body["message"]


def test_an_encoder_does_not_chat(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="ask for one that generates text: tiny"):
        client.chat.completions.create(model="encoder", messages=[{"role": "user", "content": "hello"}])


async def test_rankings_scores_and_labels(http: httpx.AsyncClient, words: text.TextModel) -> None:
    documents = ["the user", "world", "wizards jump"]
    body = {"model": "ranker", "query": "hello", "documents": documents, "raw_scores": True}
    results = (await http.post("/v1/rerank", json=body)).json()["results"]
    made = words.encode_batch([("hello", one) for one in documents])
    script = EncoderScript(width=1, shapes=[], token_types=True)
    logits = [
        float(values_of(script, ids, types)[0]) for ids, types in zip(made.ids, made.types, strict=True)
    ]
    assert [one["index"] for one in results] == sorted(range(3), key=lambda i: -logits[i])
    assert [one["relevance_score"] for one in results] == pytest.approx(
        sorted(logits, reverse=True), abs=1e-6
    )
    body = {"model": "ranker", "text_1": "hello", "text_2": documents, "use_activation": False}
    scores = (await http.post("/score", json=body)).json()["data"]
    assert [one["score"] for one in scores] == pytest.approx(logits, abs=1e-6)
    labels = (await http.post("/v1/classify", json={"model": "ranker", "input": documents})).json()["data"]
    assert [one["label"] for one in labels] == ["LABEL_0"] * 3


async def test_figures(http: httpx.AsyncClient) -> None:
    assert (await http.post("/embed", json={"model": "encoder", "inputs": "hello"})).status_code == 200
    figures = (await http.get("/metrics")).text
    assert 'basert_engine_bucket_runs_total{model="encoder",replica="0",rows="1",tokens="8"}' in figures
    assert 'basert_engine_input_tokens_bucket{le="+Inf",model="encoder",replica="0"}' in figures
    assert 'basert_requests_total{key="",model="encoder",outcome="ok"}' in figures


def test_openai_node(server: Server) -> None:
    run_node_tests("embeddings.test.mjs", 3, {"BASERT_URL": server.url})


async def test_an_engine_that_dies_is_asked_again(tmp_path: Path, words: text.TextModel) -> None:
    bundle = write_testing_encoder(tmp_path, step_seconds=0.02, shapes=[(1, 64)])
    with Server([bundle], ("--restart-backoff", "0.01")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            body = {"model": "tiny-encoder", "input": [f"hello {n}" for n in range(50)]}
            answer = asyncio.create_task(http.post("/v1/embeddings", json=body))
            while 'open_requests{model="tiny-encoder"} 1.0' not in (await http.get("/metrics")).text:
                assert not answer.done()
            engine = next(one for one in server.processes() if "engines" in one.cmdline())
            engine.send_signal(signal.SIGKILL)
            told = [one["embedding"] for one in (await answer).json()["data"]]
            assert np.allclose(told, vectors(words, body["input"]), atol=1e-6)
            fatal = await http.post("/v1/embeddings", json=body | {"input": "CRASH"})
            assert (fatal.status_code, fatal.json()["error"]["code"]) == (500, "engine_failed")


async def test_a_client_that_leaves_frees_the_engine(tmp_path: Path) -> None:
    """Else the second request would wait for five minutes."""
    bundle = write_testing_encoder(tmp_path, step_seconds=0.15, shapes=[(1, 64)])
    with Server([bundle]) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            many = {"model": "tiny-encoder", "input": ["hello"] * 2000}
            left = asyncio.create_task(http.post("/v1/embeddings", json=many))
            while 'open_requests{model="tiny-encoder"} 1.0' not in (await http.get("/metrics")).text:
                assert not left.done()
            left.cancel()
            one = await http.post("/v1/embeddings", json=many | {"input": "hello"})
            assert one.status_code == 200
            figures = (await http.get("/metrics")).text
            assert 'basert_requests_total{key="",model="tiny-encoder",outcome="cancelled"} 1.0' in figures
