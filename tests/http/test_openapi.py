"""The OpenAPI document: valid, complete, and true to what the server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from falcon.testing import ASGIConductor
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from basert.config import AppConfig
from basert.jobs.office import prepare
from tests.http.asking import typed_events
from tests.http.fakes import FakeModels, fake_app
from tests.http.hearing import ask, post
from tests.http.test_files import KIND
from tests.http.test_files import form as upload

ASKED = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hi"}],
        "logprobs": True,
        "top_logprobs": 1,
    },
    "/v1/completions": {"prompt": "hello", "echo": True, "logprobs": 1},
    "/v1/responses": {"input": "Hi", "top_logprobs": 1},
    "/v1/responses/input_tokens": {"input": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/embeddings": {"input": ["hello", "the user"]},
    "/v1/embed": {"texts": ["hello"]},
    "/v2/embed": {"texts": ["hello"]},
    "/embed": {"inputs": "hello"},
    "/v1/rerank": {"query": "hello", "documents": ["the user"], "return_documents": True},
    "/rerank": {"query": "hello", "texts": ["the user"]},
    "/v1/score": {"text_1": "hello", "text_2": "the user"},
    "/v1/classify": {"input": "hello"},
    "/predict": {"inputs": [["hello"]]},
    "/v1/tokenize": {"prompt": "hello"},
    "/v1/detokenize": {"tokens": [40, 41]},
}


def model_for(path: str) -> str:
    if "embed" in path:
        return "embedder"
    ranks = ("rank", "score", "classify", "predict")
    return "ranker" if any(word in path for word in ranks) else "org/tiny"


async def document(client: ASGIConductor) -> dict[str, Any]:
    return (await client.simulate_get("/openapi.json")).json


async def test_the_document_is_valid_and_lists_every_route(client: ASGIConductor) -> None:
    described = await document(client)
    validate(described)
    assert set(described["paths"]) >= {*ASKED, "/v1/models", "/v1/models/{model}", "/readyz", "/metrics"}
    parameters = described["paths"]["/v1/models/{model}"]["get"]["parameters"]
    assert [one["name"] for one in parameters] == ["model"]
    assert set(described["paths"]["/v1/responses/{response}"]) == {"get", "delete"}


@pytest.mark.parametrize("path", ASKED)
async def test_requests_and_answers_are_as_described(
    client: ASGIConductor, models: FakeModels, path: str
) -> None:
    models.add_encoder("embedder")
    models.add_encoder("ranker", task="classification")
    described = await document(client)
    operation = described["paths"][path]["post"]

    def matches(content: dict[str, Any], value: Any) -> None:
        schema = {**content["application/json"]["schema"], "components": described["components"]}
        Draft202012Validator(schema).validate(value)

    body = ASKED[path] | {"model": model_for(path)}
    matches(operation["requestBody"]["content"], body)
    answer = await client.simulate_post(path, json=body)
    matches(operation["responses"]["200"]["content"], answer.json)
    refused = await client.simulate_post(path, json=[])
    matches(operation["responses"]["default"]["content"], refused.json)


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_forms_and_their_answers_are_as_described(
    client: ASGIConductor, models: FakeModels, path: str
) -> None:
    models.add_speech()
    described = await document(client)
    operation = described["paths"][path]["post"]
    (kind,) = operation["requestBody"]["content"]
    assert kind == "multipart/form-data"
    name = operation["requestBody"]["content"][kind]["schema"]["$ref"].rpartition("/")[2]
    assert described["components"]["schemas"][name]["properties"]["file"]["format"] == "binary"
    content = operation["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/plain", "text/event-stream"}
    for form in ("json", "verbose_json"):
        schema = {**content["application/json"]["schema"], "components": described["components"]}
        Draft202012Validator(schema).validate(await ask(client, path=path, response_format=form))
    schema = {**content["text/event-stream"]["schema"], "components": described["components"]}
    for event in typed_events((await post(client, path=path, stream="true")).text):
        Draft202012Validator(schema).validate(event)


async def test_files_and_batches_are_as_described(models: FakeModels, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    prepare(AppConfig(files_dir=folder))
    async with ASGIConductor(fake_app(models, files_dir=folder)) as client:
        described = await document(client)

        def matches(path: str, method: str, value: Any) -> None:
            content = described["paths"][path][method]["responses"]["200"]["content"]
            schema = {**content["application/json"]["schema"], "components": described["components"]}
            Draft202012Validator(schema).validate(value)

        body = upload(b"hello", {"purpose": "batch"})
        headers = {"Content-Type": KIND}
        file = (await client.simulate_post("/v1/files", body=body, headers=headers)).json
        matches("/v1/files", "post", file)
        matches("/v1/files", "get", (await client.simulate_get("/v1/files")).json)
        asked = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
        batch = (await client.simulate_post("/v1/batches", json=asked)).json
        matches("/v1/batches", "post", batch)
        matches("/v1/batches", "get", (await client.simulate_get("/v1/batches")).json)
        path = "/v1/batches/{batch}/cancel"
        matches(path, "post", (await client.simulate_post(path.format(batch=batch["id"]))).json)
    content = described["paths"]["/v1/files/{file}/content"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/octet-stream"}
