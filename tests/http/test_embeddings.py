"""POST /v1/embeddings over fake engines, whose vectors are hashes of ids: what is asked for is what comes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from falcon.testing import ASGIConductor

from engines.sessions.testing import EncoderScript, values_of
from tests.http.fakes import FakeModel, FakeModels

WIDTH = 8
Json = dict[str, Any]


@pytest.fixture
def encoder(models: FakeModels) -> FakeModel:
    prompts = {"query": "find: ", "passage": "text: "}
    return models.add_encoder(width=WIDTH, prompts=prompts, truncatable=[4], max_tokens=32)


def vector(ids: list[int], normalised: bool = True) -> np.ndarray:
    return values_of(EncoderScript(width=WIDTH, shapes=[], normalised=normalised), ids)


async def ask(client: ASGIConductor, **fields: Any) -> Json:
    body = {"model": "encoder", "input": "hello"} | fields
    result = await client.simulate_post("/v1/embeddings", json=body)
    assert result.status_code == 200, result.text
    assert result.headers["content-type"] == "application/json"
    return result.json


async def refused(client: ASGIConductor, **fields: Any) -> Json:
    body = {"model": "encoder", "input": "hello"} | fields
    result = await client.simulate_post("/v1/embeddings", json=body)
    assert result.status_code == 400, result.text
    return result.json["error"]


def rows(answer: Json) -> np.ndarray:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return np.array([one["embedding"] for one in answer["data"]], np.float32)


async def test_the_answer_has_openais_form(client: ASGIConductor, encoder: FakeModel) -> None:
    answer = await ask(client)
    ids = encoder.text.encode("hello")
    assert len(ids) == 4  # [CLS] he llo [SEP]
    embedding = answer["data"][0].pop("embedding")
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}],
        "model": "encoder",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert np.array_equal(np.array(embedding, np.float32), vector(ids))


async def test_many_texts_are_answered_in_their_order(client: ASGIConductor, encoder: FakeModel) -> None:
    texts = [f"hello {n}" for n in range(7)]
    answer = await ask(client, input=texts)
    ids = [encoder.text.encode(text) for text in texts]
    assert np.array_equal(rows(answer), [vector(one) for one in ids])
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))


async def test_a_long_answer_is_sent_in_parts(client: ASGIConductor, encoder: FakeModel) -> None:
    texts = [f"hello {n}" for n in range(2048)]
    answer = await ask(client, input=texts)
    assert np.array_equal(rows(answer), [vector(encoder.text.encode(text)) for text in texts])
    answer = await ask(client, input=texts, encoding_format="base64")
    assert len(answer["data"]) == 2048


@pytest.mark.parametrize("given", [[40, 41], [[40, 41]], [[40, 41], [42]]])
async def test_token_ids_are_taken_as_they_are(
    client: ASGIConductor, encoder: FakeModel, given: list[Any]
) -> None:
    answer = await ask(client, input=given)
    lists = given if isinstance(given[0], list) else [given]
    assert np.array_equal(rows(answer), [vector(ids) for ids in lists])
    assert encoder.engine.encoded[0].inputs == lists


async def test_base64_holds_little_endian_floats(client: ASGIConductor, encoder: FakeModel) -> None:
    answer = await ask(client, encoding_format="base64")
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert np.array_equal(np.frombuffer(raw, "<f4"), vector(encoder.text.encode("hello")))


async def test_fewer_dimensions_have_length_one_again(client: ASGIConductor, encoder: FakeModel) -> None:
    full = rows(await ask(client, dimensions=8))[0]
    cut = rows(await ask(client, dimensions=4))[0]
    assert np.allclose(cut, full[:4] / np.linalg.norm(full[:4]), atol=1e-6)
    assert not np.allclose(np.linalg.norm(full[:4]), 1)
    error = await refused(client, dimensions=5)
    assert error["message"] == ("Invalid 'dimensions': this model makes vectors of 4 or 8 dimensions, not 5.")
    assert error["param"] == "dimensions"


async def test_any_number_of_dimensions(client: ASGIConductor, models: FakeModels) -> None:
    models.add_encoder("any", truncatable=[0], width=WIDTH)
    for dimensions in (1, 3, 8):
        answer = rows(await ask(client, model="any", dimensions=dimensions))
        assert answer.shape == (1, dimensions)
        assert np.allclose(np.linalg.norm(answer), 1)
    error = await refused(client, model="any", dimensions=9)
    assert "vectors of 1 to 8 dimensions" in error["message"]


async def test_normalising(client: ASGIConductor, models: FakeModels, encoder: FakeModel) -> None:
    models.add_encoder("loose", normalised=False, width=WIDTH)
    loose = rows(await ask(client, model="loose"))[0]
    assert np.array_equal(loose, vector(encoder.text.encode("hello"), normalised=False))
    for fields in ({"normalize": True}, {"use_activation": True}):
        assert np.allclose(rows(await ask(client, model="loose", **fields))[0], loose / np.linalg.norm(loose))
    for field in ("normalize", "use_activation"):
        error = await refused(client, **{field: False})
        assert error["param"] == field
        assert "normalised inside its graph" in error["message"]


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, ""),
        ({"input_type": "search_query"}, "find: "),
        ({"input_type": "query"}, "find: "),
        ({"input_type": "search_document"}, "text: "),
        ({"input_type": "passage"}, "text: "),
        ({"input_type": "clustering"}, ""),
        ({"prompt_name": "query"}, "find: "),
        ({"prompt": "so: "}, "so: "),
        ({"prompt": ""}, ""),
    ],
)
async def test_prompts_come_before_texts(
    client: ASGIConductor, encoder: FakeModel, fields: Json, prompt: str
) -> None:
    await ask(client, **fields)
    assert encoder.engine.encoded[0].inputs == [encoder.text.encode(f"{prompt}hello")]


async def test_a_default_prompt(client: ASGIConductor, models: FakeModels) -> None:
    model = models.add_encoder("prompted", prompts={"a": "A", "b": "B"}, default_prompt="b")
    for fields, begun in (({}, "B"), ({"prompt_name": "a"}, "A"), ({"input_type": "query"}, "B")):
        await ask(client, model="prompted", **fields)
        assert model.engine.encoded[-1].inputs == [model.text.encode(f"{begun}hello")]
    await ask(client, model="prompted", input=[[40]])
    assert model.engine.encoded[-1].inputs == [[40]]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": -1}, (0, 30)),
        ({"truncate": True}, (0, 30)),
        ({"truncate": "END"}, (0, 30)),
        ({"truncate": "START"}, (70, 100)),
        ({"truncate_prompt_tokens": 10}, (0, 8)),
        ({"truncate_prompt_tokens": 10, "truncation_side": "left"}, (92, 100)),
        ({"truncate": True, "truncation_direction": "Left"}, (70, 100)),
    ],
)
async def test_a_text_is_cut_between_its_special_tokens(
    client: ASGIConductor, encoder: FakeModel, fields: Json, kept: tuple[int, int]
) -> None:
    text = "".join(chr(65 + n % 26) for n in range(100))  # no two of which make one token
    ids = encoder.text.encode(text, add_special=False)
    assert len(ids) == 100
    answer = await ask(client, input=[text, "hello"], **fields)
    begin, end = encoder.text.encode("")
    assert encoder.engine.encoded[0].inputs[0] == [begin, *ids[slice(*kept)], end]
    assert encoder.engine.encoded[0].inputs[1] == encoder.text.encode("hello")
    assert answer["usage"]["prompt_tokens"] == sum(map(len, encoder.engine.encoded[0].inputs))


async def test_no_special_tokens_if_they_are_not_wanted(client: ASGIConductor, encoder: FakeModel) -> None:
    await ask(client, add_special_tokens=False)
    assert encoder.engine.encoded[0].inputs == [encoder.text.encode("hello", add_special=False)]


async def test_token_ids_are_cut_plainly(client: ASGIConductor, encoder: FakeModel) -> None:
    await ask(client, input=[[40, 41, 42]], truncate_prompt_tokens=2)
    await ask(client, input=[[40, 41, 42]], truncate_prompt_tokens=2, truncation_side="left")
    assert [one.inputs for one in encoder.engine.encoded] == [[[40, 41]], [[41, 42]]]


async def test_too_long_a_text_is_told_with_both_numbers_and_its_place(
    client: ASGIConductor, encoder: FakeModel
) -> None:
    error = await refused(client, input=["hello", "A" * 31])
    assert error == {
        "message": "This model's maximum context length is 32 tokens. However, 'input[1]' has 33 tokens. "
        "Please shorten it, or have it cut with 'truncate_prompt_tokens': -1.",
        "type": "invalid_request_error",
        "param": "input",
        "code": "context_length_exceeded",
    }
    assert encoder.engine.encoded == []
    assert (await refused(client, input=[[40] * 33]))["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input": []}, "input", "length >= 1"),
        ({"input": ""}, "input", "'input': it is empty"),
        ({"input": ["a", ""]}, "input", "'input[1]': it is empty"),
        ({"input": [[]]}, "input", "'input': it is empty"),
        ({"input": [[40], []]}, "input", "'input[1]': it is empty"),
        ({"input": None}, "input", "expected"),
        ({"input": ["a", 1]}, "input", "lists of token ids"),
        ({"input": {"text": "a"}}, "input", "expected"),
        ({"input": [1, 9999]}, "input", "9999 is no token id"),
        ({"input": [[1], [-1]]}, "input[1]", "-1 is no token id"),
        ({"input": ["a"] * 2049}, "input", "2049 inputs; the most taken here is 2048"),
        ({"encoding_format": "int8"}, "encoding_format", "'int8' is not supported"),
        ({"dimensions": 0}, "dimensions", ">= 1"),
        ({"prompt_name": "other"}, "prompt_name", "'other' is unknown; this model has 'query', 'passage'"),
        ({"input_type": "image"}, "input_type", "'image' is unknown; this model has 'query', 'passage'"),
        ({"prompt": "a", "input_type": "query"}, "prompt", "Send either 'prompt' or 'input_type'"),
        ({"prompt": "a", "input": [40]}, "prompt", "Token ids are taken as they are"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "-1 or at least 1"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens", ">= -1"),
        ({"truncate": "MIDDLE"}, "truncate", "'MIDDLE' is not supported"),
        ({"model": None}, "model", "must provide a model"),
    ],
)
async def test_what_cannot_be_served_is_said_plainly(
    client: ASGIConductor, encoder: FakeModel, fields: Json, param: str, message: str
) -> None:
    error = await refused(client, **fields)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]
    assert encoder.engine.encoded == []


async def test_models_are_told_apart_by_what_they_do(client: ASGIConductor, encoder: FakeModel) -> None:
    error = await refused(client, model="org/tiny")
    assert error["param"] == "model"
    assert error["message"] == (
        "The model 'org/tiny' generates text; ask for one that makes embeddings: encoder."
    )
    missing = await client.simulate_post("/v1/embeddings", json={"model": "gpt", "input": "x"})
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "model_not_found")
