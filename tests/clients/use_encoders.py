"""Clients of encoders: LangChain's standard tests of embeddings, and Cohere's own client, against BASERT_URL.

Run by test_clients.py, in the clients' own environment, with a server of the models `tiny-encoder` (vectors
of 8 dimensions, prompts "query" and "document"), `ranker` and `tiny`, which chats.
"""

from __future__ import annotations

import math
import os
from typing import Any, ClassVar

import cohere
import pytest
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

URL = os.environ["BASERT_URL"]
DOCUMENTS = ["the user", "hello world", "wizards jump"]


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params: ClassVar[dict[str, Any]] = {
        "model": "tiny-encoder",
        "base_url": f"{URL}/v1",
        "api_key": "none",
        "check_embedding_ctx_length": False,  # else it sends the tokens of OpenAI's models
    }


@pytest.fixture
def v1() -> cohere.Client:
    return cohere.Client("none", base_url=URL, max_retries=0)


@pytest.fixture
def v2() -> cohere.ClientV2:
    return cohere.ClientV2("none", base_url=URL, max_retries=0)


def test_rerank_v1(v1: cohere.Client) -> None:
    answer = v1.rerank(model="ranker", query="hello", documents=DOCUMENTS, top_n=2, return_documents=True)
    assert len(answer.results) == 2
    assert answer.results[0].relevance_score >= answer.results[1].relevance_score
    for one in answer.results:
        assert one.document.text == DOCUMENTS[one.index]
        assert 0 < one.relevance_score < 1
    assert answer.meta.tokens.input_tokens > 0
    assert answer.meta.billed_units.search_units == 1
    dicts = v1.rerank(model="ranker", query="hello", documents=[{"text": one} for one in DOCUMENTS])
    assert [one.index for one in dicts.results[:2]] == [one.index for one in answer.results]
    assert dicts.results[0].document is None


def test_rerank_v2(v2: cohere.ClientV2) -> None:
    answer = v2.rerank(model="ranker", query="hello", documents=DOCUMENTS, max_tokens_per_doc=100)
    assert sorted(one.index for one in answer.results) == [0, 1, 2]
    by_vectors = v2.rerank(model="tiny-encoder", query="hello", documents=["a" * 500, *DOCUMENTS])
    assert by_vectors.meta.ranked_by == "cosine"
    assert "1 text was cut" in by_vectors.meta.warnings[0]


@pytest.mark.parametrize("model", ["nothing", "tiny"])
def test_what_cannot_rank_is_told(v2: cohere.ClientV2, model: str) -> None:
    wrong = cohere.NotFoundError if model == "nothing" else cohere.BadRequestError
    with pytest.raises(wrong) as caught:
        v2.rerank(model=model, query="hello", documents=DOCUMENTS)
    assert "ranker" in caught.value.body["error"]["message"]


def test_embed_v1(v1: cohere.Client) -> None:
    asked = {"model": "tiny-encoder", "texts": [*DOCUMENTS] * 50, "input_type": "search_document"}
    bare = v1.embed(**asked)
    assert len(bare.embeddings) == 150
    assert math.isclose(sum(x * x for x in bare.embeddings[0]), 1, rel_tol=1e-5)
    assert bare.texts == asked["texts"]
    typed = v1.embed(**asked, embedding_types=["float"])
    assert typed.embeddings.float_ == bare.embeddings


def test_embed_v2(v2: cohere.ClientV2) -> None:
    def embed(input_type: str) -> list[list[float]]:
        asked = {"model": "tiny-encoder", "texts": DOCUMENTS, "embedding_types": ["float"]}
        answer = v2.embed(**asked, input_type=input_type, output_dimension=4)
        assert answer.meta.billed_units.input_tokens > 0
        return answer.embeddings.float_

    documents, queries = embed("search_document"), embed("search_query")
    assert {len(vector) for vector in documents} == {4}
    assert documents != queries
