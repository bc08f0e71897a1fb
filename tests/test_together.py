"""A chat model, an embedding model and a cross-encoder, all real, in one server: each as it is alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from export import sources
from tests.conftest import STORE, export
from tests.serving import Server

QUERY = "How does a cat sleep?"
DOCUMENTS = [
    "A cat sleeps for most of the day, curled up where it is warm.",
    "The engine's oil has to be changed every year.",
    "Cats are fond of fish.",
    "Sleep.",
    " ".join(["In the harbour lay ships of every kind, and nobody knew whose they were."] * 6),
]

Scores = NDArray[np.float64]


@pytest.fixture(scope="module")
def cross_encoder() -> Path:
    """A checkpoint: MiniLM's own layers and pooler below a head of one label with random weights."""
    folder = STORE / "sources" / "minilm-cross-encoder"
    if not (folder / "config.json").is_file():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        source = str(sources.fetch("minilm").path)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
        torch.nn.init.normal_(model.classifier.weight, std=0.2)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(cross_encoder: Path, smollm2_w8a8: Path, minilm_fp32: Path) -> Iterator[Server]:
    ranker = export(str(cross_encoder), "minilm-ranker", "fp32")
    with Server([smollm2_w8a8, minilm_fp32, ranker], ("--provider", "cpu")) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def logits(checkpoint: Path) -> Scores:
    """Of the pairs, by transformers in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    pairs = [[QUERY, document] for document in DOCUMENTS]
    with torch.no_grad():
        found = [model(**tokenizer([pair], return_tensors="pt")).logits for pair in pairs]
    return torch.cat(found).double().numpy()[:, 0]


def ranked(http: httpx.Client, model: str) -> Scores:
    """The scores that /v1/rerank gives, in the order of DOCUMENTS; asserts that it sorts them."""
    body = {"model": model, "query": QUERY, "documents": DOCUMENTS, "max_tokens_per_doc": 200}
    answer = http.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["relevance_score"] for one in results] == sorted(
        (one["relevance_score"] for one in results), reverse=True
    )
    scores = {one["index"]: one["relevance_score"] for one in results}
    return np.array([scores[index] for index in range(len(DOCUMENTS))])


def test_a_cross_encoder_scores_as_transformers_does(http: httpx.Client, cross_encoder: Path) -> None:
    expected = 1 / (1 + np.exp(-logits(cross_encoder)))
    np.testing.assert_allclose(ranked(http, "minilm-ranker"), expected, atol=1e-4)


def test_raw_scores_are_logits(http: httpx.Client, cross_encoder: Path) -> None:
    body = {"model": "minilm-ranker", "text_1": QUERY, "text_2": DOCUMENTS, "raw_scores": True}
    answer = http.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    found = [one["score"] for one in answer.json()["data"]]
    np.testing.assert_allclose(found, logits(cross_encoder), atol=1e-3)


def test_all_three_at_once_answer_as_each_does_alone(server: Server, http: httpx.Client) -> None:
    def chat(_: int) -> str:
        with server.openai(max_retries=0) as client:
            asked = [{"role": "user", "content": "What is the capital of France?"}]
            answer = client.chat.completions.create(
                model="smollm2-w8a8", messages=asked, temperature=0, max_tokens=24
            )
        return str(answer.choices[0].message.content)

    def embed(_: int) -> Scores:
        with server.openai(max_retries=0) as client:
            answer = client.embeddings.create(model="minilm-fp32", input=DOCUMENTS)
        return np.array([one.embedding for one in answer.data])

    text, vectors, scores = chat(0), embed(0), ranked(http, "minilm-ranker")
    with ThreadPoolExecutor(12) as pool:
        chats = [pool.submit(chat, number) for number in range(4)]
        embeds = [pool.submit(embed, number) for number in range(8)]
        ranks = [pool.submit(ranked, http, "minilm-ranker") for _ in range(8)]
    assert {one.result() for one in chats} == {text}
    for one in embeds:
        np.testing.assert_allclose(one.result(), vectors, atol=2e-6)
    for one in ranks:
        np.testing.assert_allclose(one.result(), scores, atol=2e-6)


def test_a_model_is_not_asked_for_what_it_cannot_do(http: httpx.Client) -> None:
    for path, body in (
        ("/v1/embeddings", {"model": "smollm2-w8a8", "input": "x"}),
        ("/v1/rerank", {"model": "smollm2-w8a8", "query": "x", "documents": ["y"]}),
        (
            "/v1/chat/completions",
            {"model": "minilm-fp32", "messages": [{"role": "user", "content": "x"}]},
        ),
        ("/v1/embeddings", {"model": "minilm-ranker", "input": "x"}),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 400, (path, answer.text)
        assert body["model"] in answer.json()["error"]["message"]
