"""Vectors on the wire are those of sentence-transformers: a real model, real servers, each provider."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from export import prose, sources
from tests.serving import Server

# The least cosine to sentence-transformers in fp32 of any text; most measure far better.
FLOORS = {"fp32-cpu": 1 - 1e-5, "w8a8-cpu": 0.98, "fp32-openvino": 0.9995}

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Of 1 to 256 tokens and beyond, in no order."""
    words = prose.evaluation().split()
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 170, 6, 40, 1, 100, 12, 30, 4, 70]
    starts = np.cumsum([0, *lengths])
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=False)]


@pytest.fixture(scope="module")
def reference(texts: list[str]) -> Vectors:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(sources.fetch("minilm").path), device="cpu")
    return np.asarray(model.encode(texts, batch_size=4, show_progress_bar=False), np.float32)


@pytest.fixture(scope="module", params=list(FLOORS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(kind: str, minilm_fp32: Path, minilm_w8a8: Path) -> Iterator[httpx.Client]:
    variant, provider = kind.split("-")
    bundle = minilm_fp32 if variant == "fp32" else minilm_w8a8
    flags = ("--provider", provider, "--served-model-name", "m")
    with Server([bundle], flags) as server, httpx.Client(base_url=server.url, timeout=120) as http:
        yield http


def embedded(client: httpx.Client, texts: list[str], **fields: Any) -> Vectors:
    body = {"model": "m", "input": texts, "truncate_prompt_tokens": -1, **fields}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


def cosines(one: Vectors, other: Vectors) -> Vectors:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / lengths)


def test_vectors_are_those_of_sentence_transformers(
    client: httpx.Client, kind: str, texts: list[str], reference: Vectors
) -> None:
    found = embedded(client, texts)
    assert cosines(found, reference).min() >= FLOORS[kind]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_in_any_batch(
    client: httpx.Client, kind: str, texts: list[str]
) -> None:
    together = embedded(client, texts)
    with ThreadPoolExecutor(8) as pool:  # so that requests share batches
        alone = np.concatenate(list(pool.map(lambda text: embedded(client, [text]), texts)))
        pairs = np.concatenate(
            list(pool.map(lambda at: embedded(client, texts[at : at + 2]), range(0, len(texts), 2)))
        )
    # bfloat16 rounds what padding to another length has added up in another order
    atol = 5e-3 if kind.endswith("openvino") else 2e-6 if kind.startswith("fp32") else 2e-2
    for others in (alone, pairs):
        np.testing.assert_allclose(others, together, atol=atol)


def test_texts_rank_as_they_do_in_full_precision(
    client: httpx.Client, texts: list[str], reference: Vectors
) -> None:
    body = {"model": "m", "query": texts[0], "documents": texts[1:], "max_tokens_per_doc": 256}
    answer = client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    found = np.empty(len(texts) - 1)
    for result in answer.json()["results"]:
        found[result["index"]] = result["relevance_score"]
    expected = reference[1:] @ reference[0]
    ranks = [np.argsort(np.argsort(scores)) for scores in (found, expected)]
    assert np.corrcoef(*ranks)[0, 1] > 0.95


def test_a_quarter_of_the_dimensions_is_refused_where_the_model_was_not_trained_for_it(
    client: httpx.Client,
) -> None:
    answer = client.post("/v1/embeddings", json={"model": "m", "input": "x", "dimensions": 96})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "dimensions"
