"""Wrong requests to encoders: 400 with the field named, never a 500, and nothing else is affected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from falcon.testing import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from basert.schema.embeddings import CohereEmbedRequest, EmbeddingsRequest, EmbedRequest
from basert.schema.parsing import too_deep
from basert.schema.ranking import RerankRequest
from basert.schema.scoring import ClassifyRequest, ScoreRequest
from tests.http.fakes import FakeModels, fake_app
from tests.http.test_bad_requests import JSON, refused

GOOD: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "embedder", "input": "hello"},
    "/embed": {"model": "embedder", "inputs": "hello"},
    "/v2/embed": {"model": "embedder", "texts": ["hello"]},
    "/v1/rerank": {"model": "ranker", "query": "hello", "documents": ["the user"]},
    "/v1/score": {"model": "ranker", "text_1": "hello", "text_2": "the user"},
    "/v1/classify": {"model": "ranker", "input": "hello"},
}
KINDS = {
    "/v1/embeddings": EmbeddingsRequest,
    "/embed": EmbedRequest,
    "/v2/embed": CohereEmbedRequest,
    "/v1/rerank": RerankRequest,
    "/v1/score": ScoreRequest,
    "/v1/classify": ClassifyRequest,
}
JSON_TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> FakeModels:
    models = FakeModels(tmp_path_factory.mktemp("models"))
    models.add_encoder("embedder", truncatable=[0])
    models.add_encoder("ranker", task="classification", token_types=True)
    return models


@pytest.fixture(scope="module")
def client(models: FakeModels) -> TestClient:
    return TestClient(fake_app(models, max_inputs=5, max_prompt_bytes=500))


def wrong_for(path: str) -> Iterator[tuple[str, str, Any]]:
    """For every field values of types that it does not take, and for every number one out of its range."""
    for field in msgspec.structs.fields(KINDS[path]):
        yield path, field.name, {"no": [{}]}
        yield path, field.name, [[[None]]]
        yield path, field.name, 10**40


@pytest.mark.parametrize(("path", "field", "value"), [one for path in GOOD for one in wrong_for(path)])
def test_a_value_of_the_wrong_type_is_blamed_on_its_field(
    client: TestClient, path: str, field: str, value: Any
) -> None:
    error = refused(client, path, GOOD[path] | {field: value})
    assert (error["param"] or "").partition("[")[0].partition(".")[0] == field, error
    assert field in error["message"]


@pytest.mark.parametrize("path", GOOD)
def test_inputs_have_limits(client: TestClient, path: str) -> None:
    body = {name: ["x"] * 6 if name in ("input", "inputs") else value for name, value in GOOD[path].items()}
    body |= {name: ["x"] * 6 for name in ("texts", "documents", "text_2") if name in body}
    error = refused(client, path, body | ({"inputs": [["x"]] * 6} if path == "/v1/classify" else {}))
    if path != "/v1/classify":
        assert "6 inputs; the most taken here is 5" in error["message"]
    body = {name: "x" * 501 if value == "hello" else value for name, value in GOOD[path].items()}
    body |= {"texts": ["x" * 501]} if "texts" in body else {}
    assert "has 501 characters; the most taken here is 500" in refused(client, path, body)["message"]


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "valid JSON"),
        (b"[]", "expected an object, got an array"),
        (b'{"model": "\xff"}', "valid JSON"),
        (b'{"input": "\\ud800"}', "valid JSON"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"input": ' + b"[" * 80 + b"1" + b"]" * 81, "nested more than 64 levels"),
        (b'{"dimensions": NaN}', "valid JSON"),
        (b'{"priority": 1e999}', "out of range"),
    ],
)
def test_a_body_that_is_no_request(client: TestClient, path: str, body: bytes, message: str) -> None:
    result = client.simulate_post(path, body=body, headers=JSON_TYPE)
    assert result.status_code == 400
    assert message in result.json["error"]["message"]


def test_a_body_too_large(models: FakeModels) -> None:
    small = TestClient(fake_app(models, max_body_bytes=2000))
    body = GOOD["/v1/embeddings"] | {"input": ["x" * 100] * 30}
    assert refused(small, "/v1/embeddings", body, 413)["code"] == "payload_too_large"


def test_unknown_fields_and_nulls_change_nothing(client: TestClient) -> None:
    for path, body in GOOD.items():
        plain = client.simulate_post(path, json=body)
        kinds = msgspec.structs.fields(KINDS[path])
        nulls = {field.name: None for field in kinds if field.name not in body}
        padded = client.simulate_post(path, json=body | nulls | {"nothing": [1], "embed_dtype": "float32"})
        assert (plain.status_code, padded.status_code) == (200, 200), padded.text
        one, other = plain.json, padded.json
        if isinstance(one, dict):
            one, other = ({**told, "id": "", "created": 0} for told in (one, other))
        assert one == other


TEXTS = st.text(max_size=30) | st.lists(st.text(max_size=8), max_size=4)
IDS = st.lists(st.integers(-1, 400), max_size=8)
FIELDS = sorted({field.name for kind in KINDS.values() for field in msgspec.structs.fields(kind)} - {"model"})
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON | TEXTS | IDS | st.lists(IDS, max_size=3), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(GOOD)), BODIES)
def test_wild_json_is_answered_or_refused(client: TestClient, path: str, fields: Any) -> None:
    result = client.simulate_post(path, body=json.dumps(GOOD[path] | fields), headers=JSON_TYPE)
    assert result.status_code in (200, 400), result.text
    if result.status_code == 400:
        assert sorted(result.json["error"]) == ["code", "message", "param", "type"]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(GOOD)), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_wild_bodies_are_refused(client: TestClient, path: str, body: bytes) -> None:
    result = client.simulate_post(path, body=body, headers=JSON_TYPE)
    assert result.status_code == 400, result.text
    assert sorted(result.json["error"]) == ["code", "message", "param", "type"]


def depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
    return 0


@given(
    st.recursive(
        st.text("[]{}\\\"'a\n"), lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}\\"'), inner)
    )
)
def test_depth_is_counted_outside_of_strings(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert too_deep(raw, depth(value)) is False
    assert too_deep(raw, depth(value) - 1) is (depth(value) > 0)
