"""Rankings, scores and labels over fake engines, whose logits are hashes of ids and token types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from falcon.testing import ASGIConductor

from engines.sessions.testing import EncoderScript, values_of
from tests.http.fakes import FakeModel, FakeModels

Json = dict[str, Any]
QUERY, DOCUMENTS = "hello", ["the user", "the world", "wizards jump", "the system"]


@pytest.fixture
def ranker(models: FakeModels) -> FakeModel:
    return models.add_encoder("ranker", task="classification", token_types=True, max_tokens=32)


@pytest.fixture
def labeller(models: FakeModels) -> FakeModel:
    return models.add_encoder("labeller", task="classification", labels=["good", "bad", "other"])


@pytest.fixture
def embedder(models: FakeModels) -> FakeModel:
    return models.add_encoder("embedder", prompts={"query": "find: ", "document": "text: "}, width=8)


async def ask(client: ASGIConductor, path: str, body: Json) -> Any:
    result = await client.simulate_post(path, json=body)
    assert result.status_code == 200, result.text
    return result.json


async def refused(client: ASGIConductor, path: str, body: Json) -> Json:
    result = await client.simulate_post(path, json=body)
    assert result.status_code == 400, result.text
    return result.json["error"]


async def ranked(client: ASGIConductor, path: str = "/v1/rerank", **fields: Any) -> Json:
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | fields
    return await ask(client, path, {name: value for name, value in body.items() if value is not None})


def values(model: FakeModel, one: str, other: str | None = None, labels: int = 1) -> np.ndarray:
    """What the fake engine makes of a text or a pair, as the tokenizer itself puts it together."""
    encoding = model.text._tokenizer.encode(one, other)
    types = encoding.type_ids if model.manifest.encoder.token_types else None
    return values_of(EncoderScript(width=labels, shapes=[], token_types=True), encoding.ids, types)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_a_ranking_has_coheres_form(client: ASGIConductor, ranker: FakeModel, path: str) -> None:
    answer = await ranked(client, path)
    scores = [sigmoid(values(ranker, QUERY, document)[0]) for document in DOCUMENTS]
    order = sorted(range(4), key=lambda i: -scores[i])
    assert order != [0, 1, 2, 3]
    assert [one["index"] for one in answer["results"]] == order
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(scores[one["index"]], rel=1e-6)
        assert list(one) == ["index", "relevance_score"]
    tokens = sum(map(len, ranker.engine.encoded[0].inputs))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer["meta"] == {
        "tokens": {"input_tokens": tokens},
        "billed_units": {"search_units": 1},
        "ranked_by": "cross-encoder",
    }
    assert answer["id"]
    assert answer["model"] == "ranker"


async def test_documents_may_be_objects_and_come_back_if_asked_for(
    client: ASGIConductor, ranker: FakeModel
) -> None:
    plain = await ranked(client, return_documents=True)
    assert [one["document"] for one in plain["results"]] == [
        {"text": DOCUMENTS[one["index"]]} for one in plain["results"]
    ]
    objects = await ranked(client, documents=[{"text": text, "title": "x"} for text in DOCUMENTS])
    assert [one["index"] for one in objects["results"]] == [one["index"] for one in plain["results"]]


@pytest.mark.parametrize(("top_n", "results"), [(1, 1), (3, 3), (4, 4), (100, 4), (0, 4), (None, 4)])
async def test_the_best_come_first(
    client: ASGIConductor, ranker: FakeModel, top_n: int | None, results: int
) -> None:
    scores = [one["relevance_score"] for one in (await ranked(client, top_n=top_n))["results"]]
    assert len(scores) == results
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("fields", [{"raw_scores": True}, {"use_activation": False}])
async def test_raw_scores_are_logits(client: ASGIConductor, ranker: FakeModel, fields: Json) -> None:
    answer = await ranked(client, **fields)
    for one in answer["results"]:
        logit = values(ranker, QUERY, DOCUMENTS[one["index"]])[0]
        assert one["relevance_score"] == pytest.approx(logit, rel=1e-6)


async def test_the_form_of_text_embeddings_inference(client: ASGIConductor, ranker: FakeModel) -> None:
    """It knows no names of models: the only one that ranks is meant."""
    answer = await ask(client, "/rerank", {"query": QUERY, "texts": DOCUMENTS})
    wanted = (await ranked(client))["results"]
    assert answer == [{"index": one["index"], "score": one["relevance_score"]} for one in wanted]
    body = {"query": QUERY, "texts": DOCUMENTS, "return_text": True, "raw_scores": True}
    answer = await ask(client, "/rerank", body)
    assert [one["text"] for one in answer] == [DOCUMENTS[one["index"]] for one in answer]
    assert answer[0]["score"] == pytest.approx(values(ranker, QUERY, answer[0]["text"])[0], rel=1e-6)


async def test_without_a_name_it_must_be_clear_which_model_is_meant(
    client: ASGIConductor, ranker: FakeModel, embedder: FakeModel
) -> None:
    error = await refused(client, "/rerank", {"query": QUERY, "texts": DOCUMENTS})
    assert error["param"] == "model"
    assert await ask(client, "/rerank", {"query": QUERY, "texts": DOCUMENTS, "model": "ranker"})


async def test_long_documents_are_cut_and_it_is_said(client: ASGIConductor, ranker: FakeModel) -> None:
    long = "A" * 100
    answer = await ranked(client, documents=["short", long])
    assert answer["meta"]["warnings"] == [
        "1 text was cut; this model takes 32 tokens, special ones included."
    ]
    sent = ranker.engine.encoded[0]
    assert [len(ids) for ids in sent.inputs][1] == 32
    query = ranker.text.encode(QUERY)
    assert sent.inputs[1][: len(query)] == query
    assert sent.token_types[1] == [0] * len(query) + [1] * (32 - len(query))
    answer = await ranked(client, documents=[long], max_tokens_per_doc=5)
    assert len(ranker.engine.encoded[1].inputs[0]) == len(query) + 5 + 1
    error = await refused(client, "/rerank", {"query": QUERY, "texts": [long]})
    assert error["code"] == "context_length_exceeded"
    assert "32 tokens" in error["message"]
    assert "'texts' has 105 tokens" in error["message"]
    body = {"model": "ranker", "query": QUERY, "documents": [long], "truncate": "NONE"}
    assert (await refused(client, "/v1/rerank", body))["code"] == "context_length_exceeded"
    await ask(client, "/rerank", {"query": QUERY, "texts": [long], "truncate": True})
    assert ranker.engine.encoded[2].inputs == sent.inputs[1:]


async def test_a_query_is_never_cut_for_its_documents(client: ASGIConductor, ranker: FakeModel) -> None:
    body = {"model": "ranker", "query": "A" * 40, "documents": DOCUMENTS}
    error = await refused(client, "/v1/rerank", body)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "query")
    assert "'query' has 43 tokens" in error["message"]


async def test_an_embedding_model_ranks_by_its_vectors_and_says_so(
    client: ASGIConductor, embedder: FakeModel
) -> None:
    answer = await ranked(client, model="embedder")
    assert answer["meta"]["ranked_by"] == "cosine"
    texts = [f"find: {QUERY}", *(f"text: {document}" for document in DOCUMENTS)]
    assert embedder.engine.encoded[0].inputs == [embedder.text.encode(text) for text in texts]
    script = EncoderScript(width=8, shapes=[], normalised=True)
    query, *others = [values_of(script, ids) for ids in embedder.engine.encoded[0].inputs]
    scores = [float(query @ other) for other in others]
    assert [one["index"] for one in answer["results"]] == sorted(range(4), key=lambda i: -scores[i])
    assert [one["relevance_score"] for one in answer["results"]] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-6
    )
    answer = await ranked(client, model="embedder", documents=["A" * 100, "B"], max_tokens_per_doc=5)
    assert len(embedder.engine.encoded[1].inputs[1]) == 7
    assert answer["meta"]["warnings"]


async def test_vectors_of_any_length_are_compared_by_the_checkpoints_word(
    client: ASGIConductor, models: FakeModels
) -> None:
    dot = models.add_encoder("dot", normalised=False, similarity="dot", width=4)
    cosine = models.add_encoder("cosine", normalised=False, width=4)
    script = EncoderScript(width=4, shapes=[])
    a, b = (values_of(script, dot.text.encode(text)) for text in ("hello", "the user"))
    for model, wanted in ((dot, a @ b), (cosine, a @ b / np.linalg.norm(a) / np.linalg.norm(b))):
        body = {"model": model.name, "text_1": "hello", "text_2": "the user"}
        answer = await ask(client, "/v1/score", body)
        assert answer["data"][0]["score"] == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
async def test_scores_have_vllms_form(
    client: ASGIConductor, ranker: FakeModel, path: str, names: tuple[str, str]
) -> None:
    cases: list[tuple[Any, Any]] = [("a", "b"), ("a", ["b", "c"]), (["a"], "b"), (["a", "b"], ["c", "d"])]
    for one, other in cases:
        answer = await ask(client, path, {"model": "ranker", names[0]: one, names[1]: other})
        ones, others = ([side] if isinstance(side, str) else side for side in (one, other))
        pairs = list(zip(ones * len(others) if len(ones) == 1 else ones, others, strict=True))
        assert [score.pop("score") for score in answer["data"]] == pytest.approx(
            [sigmoid(values(ranker, *pair)[0]) for pair in pairs], rel=1e-6
        )
        assert answer["data"] == [{"index": i, "object": "score"} for i in range(len(pairs))]
        assert answer["object"] == "list"
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
async def test_labels_have_vllms_form(client: ASGIConductor, labeller: FakeModel, path: str) -> None:
    texts = ["hello", "the world", "wizards"]
    answer = await ask(client, path, {"model": "labeller", "input": texts})
    for one, text in zip(answer["data"], texts, strict=True):
        powers = np.exp(values(labeller, text, labels=3).astype(float))
        assert one["probs"] == pytest.approx(list(powers / powers.sum()), rel=1e-6)
        assert sum(one["probs"]) == pytest.approx(1)
        assert one["label"] == ["good", "bad", "other"][int(np.argmax(powers))]
        assert one["num_classes"] == 3
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert (await ask(client, path, {"model": "labeller", "input": "hello"}))["data"] == answer["data"][:1]
    raw = await ask(client, path, {"model": "labeller", "input": "hello", "use_activation": False})
    assert raw["data"][0]["probs"] == pytest.approx(values(labeller, "hello", labels=3).tolist(), rel=1e-6)


async def test_labels_as_text_embeddings_inference_has_them(
    client: ASGIConductor, labeller: FakeModel
) -> None:
    one = await ask(client, "/predict", {"inputs": "hello"})
    assert sorted(label["label"] for label in one) == ["bad", "good", "other"]
    assert [label["score"] for label in one] == sorted((label["score"] for label in one), reverse=True)
    assert await ask(client, "/predict", {"inputs": ["hello"]}) == one
    assert await ask(client, "/v1/classify", {"inputs": [["hello"], ["hello"]]}) == [one, one]
    await ask(client, "/predict", {"inputs": ["hello", "the user"]})
    pair = labeller.text.encode_batch([("hello", "the user")]).ids
    assert labeller.engine.encoded[-1].inputs == pair


async def test_vectors_as_text_embeddings_inference_has_them(
    client: ASGIConductor, embedder: FakeModel, models: FakeModels
) -> None:
    several = await ask(client, "/embed", {"inputs": ["hello", "the user"]})
    assert np.array(several).shape == (2, 8)
    assert await ask(client, "/embed", {"inputs": "hello"}) == several[:1]
    assert (await refused(client, "/embed", {"inputs": "a", "normalize": False}))["param"] == "normalize"
    models.add_encoder("loose", normalised=False)
    lengths = [
        np.linalg.norm(await ask(client, "/embed", {"inputs": "a", "model": "loose"} | fields))
        for fields in ({}, {"normalize": False})
    ]
    assert lengths[0] == pytest.approx(1)
    assert lengths[1] != pytest.approx(1)


async def test_vectors_as_cohere_has_them(client: ASGIConductor, embedder: FakeModel) -> None:
    body = {"model": "embedder", "texts": ["hello", "A" * 100], "input_type": "search_query"}
    bare = await ask(client, "/v1/embed", body)
    assert np.array(bare["embeddings"]).shape == (2, 8)
    assert bare["response_type"] == "embeddings_floats"
    assert bare["meta"]["warnings"][0].startswith("1 text was cut")
    assert embedder.engine.encoded[0].inputs[0] == embedder.text.encode("find: hello")
    by_type = await ask(client, "/v2/embed", body | {"embedding_types": ["float"]})
    assert by_type["embeddings"] == {"float": bare["embeddings"]}
    assert (by_type["response_type"], by_type["texts"]) == ("embeddings_by_type", body["texts"])
    encoded = await ask(client, "/v1/embed", body | {"embedding_types": ["base64"]})
    assert all(isinstance(one, str) for one in encoded["embeddings"]["base64"])
    error = await refused(client, "/v2/embed", body | {"truncate": "NONE"})
    assert error["code"] == "context_length_exceeded"
    assert (
        "'int8' is not supported"
        in (await refused(client, "/v2/embed", body | {"embedding_types": ["int8"]}))["message"]
    )


@pytest.mark.parametrize(
    ("path", "fields", "param", "message"),
    [
        ("/v1/rerank", {"query": "a"}, "documents", "either 'documents' or 'texts'"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "texts": ["b"]}, "documents", "either"),
        ("/v1/rerank", {"documents": ["b"]}, "query", "Missing required"),
        ("/v1/rerank", {"query": "", "documents": ["b"]}, "query", "it is empty"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents", "length >= 1"),
        ("/v1/rerank", {"query": "a", "documents": ["b", ""]}, "documents", "'documents[1]': it is empty"),
        ("/v1/rerank", {"query": "a", "documents": [{"txt": "b"}]}, "documents[0].text", "Missing"),
        (
            "/v1/rerank",
            {"query": "a", "documents": ["b"], "rank_fields": ["x"]},
            "rank_fields",
            "by its text",
        ),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", ">= 0"),
        ("/v1/rerank", {"query": "a", "documents": ["b"] * 2049}, "documents", "2049 inputs"),
        (
            "/v1/rerank",
            {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0},
            "max_tokens_per_doc",
            "1",
        ),
        ("/v1/score", {"text_1": "a"}, "text_1", "Send 'text_1' and 'text_2'"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"] * 3}, "text_1", "has 2 texts and 'text_2' 3"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": "c"}, "text_1", "has 2 texts and 'text_2' 1"),
        ("/v1/score", {"text_1": [], "text_2": "c"}, "text_1", "length >= 1"),
        ("/v1/score", {"text_1": "a", "text_2": ["b", ""]}, "text_2", "'text_2[1]': it is empty"),
        ("/v1/score", {"text_1": {"content": []}, "text_2": "b"}, "text_1", "expected"),
        ("/v1/classify", {}, "input", "either 'input' or 'inputs'"),
        ("/v1/classify", {"input": ""}, "input", "it is empty"),
        ("/v1/classify", {"inputs": ["a", "b", "c"]}, "inputs", "one or two texts"),
        ("/v1/classify", {"inputs": [["a", "b", "c"]]}, "inputs", "one or two texts"),
        ("/v1/classify", {"inputs": [["a"], []]}, "inputs", "one or two texts"),
        ("/v1/classify", {"inputs": [["a"], "b", 5]}, "inputs[2]", "expected"),
    ],
)
async def test_what_cannot_be_served_is_said_plainly(
    client: ASGIConductor, ranker: FakeModel, path: str, fields: Json, param: str, message: str
) -> None:
    error = await refused(client, path, {"model": "ranker"} | fields)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]
    assert ranker.engine.encoded == []


async def test_a_model_without_pairs_takes_none(client: ASGIConductor, models: FakeModels) -> None:
    models.add_encoder("single", task="classification", pairs=False, labels=["a", "b"])
    error = await refused(client, "/predict", {"inputs": ["a", "b"]})
    assert "takes no pairs" in error["message"]


@pytest.mark.parametrize(
    ("model", "path", "fields", "message"),
    [
        (
            "org/tiny",
            "/v1/rerank",
            {"query": "a", "documents": ["b"]},
            "generates text; ask for one that ranks or scores pairs of texts: ranker, embedder.",
        ),
        (
            "labeller",
            "/v1/rerank",
            {"query": "a", "documents": ["b"]},
            "classifies texts; ask for one that rank",
        ),
        ("labeller", "/v1/score", {"text_1": "a", "text_2": "b"}, "classifies texts; ask for one that rank"),
        ("embedder", "/v1/classify", {"input": "a"}, "makes embeddings; ask for one that classifies"),
        (
            "ranker",
            "/v1/embeddings",
            {"input": "a"},
            "ranks or scores pairs of texts; ask for one that makes embeddings: embedder.",
        ),
        (
            "embedder",
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}]},
            "makes embeddings; ask for one that generates text: org/tiny.",
        ),
        ("embedder", "/v1/completions", {"prompt": "a"}, "generates text: org/tiny."),
        ("embedder", "/v1/responses", {"input": "a"}, "generates text: org/tiny."),
    ],
)
@pytest.mark.usefixtures("ranker", "labeller", "embedder")
async def test_every_model_does_only_what_it_is_for(
    client: ASGIConductor, model: str, path: str, fields: Json, message: str
) -> None:
    error = await refused(client, path, {"model": model} | fields)
    assert error["param"] == "model"
    assert message in error["message"]


@pytest.mark.usefixtures("ranker", "labeller", "embedder")
async def test_the_list_of_models_tells_what_they_are_for(client: ASGIConductor) -> None:
    cards = {card["id"]: card for card in (await client.simulate_get("/v1/models")).json["data"]}
    tasks = {"org/tiny": "generate", "ranker": "rerank", "labeller": "classify", "embedder": "embed"}
    assert {name: cards[name]["task"] for name in tasks} == tasks
    assert (cards["embedder"]["dimensions"], cards["embedder"]["prompts"]) == (8, ["query", "document"])
    assert cards["labeller"]["labels"] == ["good", "bad", "other"]
    assert cards["ranker"]["max_model_len"] == 32
    assert "dimensions" not in cards["org/tiny"]


@pytest.mark.parametrize("model", ["ranker", "embedder"])
@pytest.mark.usefixtures("ranker", "embedder")
async def test_an_encoders_tokens_and_back(client: ASGIConductor, model: str, models: FakeModels) -> None:
    told = await ask(client, "/tokenize", {"model": model, "prompt": "hello", "return_token_strs": True})
    assert told["token_strs"] == ["[CLS]", "he", "llo", "[SEP]"]
    body = {"model": model, "tokens": told["tokens"]}
    assert await ask(client, "/detokenize", body) == {"prompt": "[CLS]hello[SEP]"}
    error = await refused(
        client, "/tokenize", {"model": model, "messages": [{"role": "user", "content": "a"}]}
    )
    assert "ask for one that generates text: org/tiny" in error["message"]
