"""Wrong requests: 400 with the field named, never a 500, never a stack trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from falcon.testing import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from basert.schema.chat import ChatRequest
from basert.schema.completions import CompletionRequest
from tests.http.fakes import FakeModels, fake_app

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "org/tiny", "messages": USER},
    TEXT: {"model": "org/tiny", "prompt": "hello"},
}
NAMED = {"type": "function", "function": {"name": "g"}}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder: Path = tmp_path_factory.mktemp("models")
    return TestClient(fake_app(FakeModels(folder), max_messages=4, max_prompt_bytes=5000))


def refused(client: TestClient, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    result = client.simulate_post(path, body=json.dumps(body), headers={"content-type": "application/json"})
    assert result.status_code == status, result.text
    assert result.headers["content-type"] == "application/json"
    assert list(result.json) == ["error"]
    assert sorted(result.json["error"]) == ["code", "message", "param", "type"]
    return result.json["error"]


def wrong_for(path: str) -> Iterator[tuple[str, str, Any]]:
    """For every field a value of a type it does not take, and for every number one out of its range."""
    kind = ChatRequest if path == CHAT else CompletionRequest
    takes_objects = {"metadata", "chat_template_kwargs", "guided_json", "json_schema"}
    for field in msgspec.structs.fields(kind):
        yield path, field.name, 5.5 if field.name in takes_objects else {"no": [{}]}
        if field.name not in ("max_tokens", "max_completion_tokens", "seed", "best_of"):
            yield path, field.name, 10**40
        yield path, field.name, [[[None]]]


@pytest.mark.parametrize(("path", "field", "value"), [*wrong_for(CHAT), *wrong_for(TEXT)])
def test_a_value_of_the_wrong_type_is_blamed_on_its_field(
    client: TestClient, path: str, field: str, value: Any
) -> None:
    error = refused(client, path, GOOD[path] | {field: value}, 400)
    assert (error["param"] or "").partition("[")[0].partition(".")[0] == field, error
    assert field in error["message"]


@pytest.mark.parametrize(
    ("path", "fields", "param", "message"),
    [
        (CHAT, {"model": None}, "model", "must provide a model"),
        (CHAT, {"messages": None}, "messages", "array"),
        (CHAT, {"messages": []}, "messages", "length >= 1"),
        (CHAT, {"messages": USER * 5}, "messages", "5 messages; the most taken here is 4"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "Missing required"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "'robot'"),
        (CHAT, {"messages": [{"role": None, "content": "x"}]}, "messages[0].role", "expected a string."),
        (CHAT, {"repetition_penalty": 0.001}, "repetition_penalty", ">= 0.01"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "Missing required"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content", "got null"),
        (CHAT, {"messages": [*USER, {"role": "assistant"}]}, "messages[1].content", "Missing required"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "Missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "'image_url' is not supported",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "x " * 2600}]},
            "messages",
            "the most taken here is 5000",
        ),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", "when 'stream' is true"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", "when 'logprobs' is true"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "<= 20"),
        (CHAT, {"tools": []}, "tools", "too short"),
        (CHAT, {"tool_choice": "auto"}, "tool_choice", "when 'tools' are specified"),
        (CHAT, {"tools": [TOOL, TOOL]}, "tools[1].function.name", "is there twice"),
        (CHAT, {"tools": [TOOL], "tool_choice": "some"}, "tool_choice", "expected"),
        (CHAT, {"tools": [TOOL], "tool_choice": NAMED}, "tool_choice", "'g' is none of the tools"),
        (CHAT, {"response_format": {"type": "yaml"}}, "response_format", "'type' must be"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "Missing"),
        (CHAT, {"guided_regex": 7}, "guided_regex", "expected a string"),
        (CHAT, {"guided_choice": []}, "guided_choice", "expected strings"),
        (CHAT, {"guided_json": "{"}, "guided_json", "not valid JSON"),
        (CHAT, {"guided_json": {}, "guided_regex": "a"}, "guided_regex", "leave one of them out"),
        (CHAT, {"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs", "send one of"),
        (CHAT, {"guided_regex": "a" * 600_000}, "guided_regex", "a grammar of over"),
        (CHAT, {"web_search_options": {}}, "web_search_options", "not supported"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities[1]", "'audio' is not supported"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions", "send 'tools'"),
        (CHAT, {"temperature": 2.1}, "temperature", "<= 2"),
        (CHAT, {"temperature": True}, "temperature", "expected a number, got a boolean"),
        (CHAT, {"n": 0}, "n", ">= 1"),
        (CHAT, {"stop": ["a", ""]}, "stop[1]", "length >= 1"),
        (CHAT, {"seed": 1.5}, "seed", "expected an integer"),
        (CHAT, {"logit_bias": {"x": 1}}, "logit_bias", "expected an integer"),
        (CHAT, {"logit_bias": {"9999": 1}}, "logit_bias", "9999 is no token id"),
        (CHAT, {"stop_token_ids": [9999]}, "stop_token_ids", "9999 is no token id"),
        (CHAT, {"min_tokens": 5, "max_tokens": 4}, "min_tokens", "more than the 4"),
        (TEXT, {"prompt": None}, "prompt", "expected"),
        (TEXT, {"prompt": []}, "prompt", "length >= 1"),
        (TEXT, {"prompt": ""}, "prompt", "no tokens"),
        (TEXT, {"prompt": [[]]}, "prompt", "no tokens"),
        (TEXT, {"prompt": ["a", 1]}, "prompt", "lists of token ids"),
        (TEXT, {"prompt": [1, 9999]}, "prompt", "9999 is no token id"),
        (TEXT, {"prompt": [-1]}, "prompt", "-1 is no token id"),
        (TEXT, {"logprobs": 6}, "logprobs", "<= 5"),
        (TEXT, {"logprobs": True}, "logprobs", "expected an integer"),
        (TEXT, {"best_of": 2, "n": 3}, "best_of", "2 choices are fewer than the 3"),
        (TEXT, {"best_of": 2, "stream": True}, "best_of", "known at their end"),
        (TEXT, {"suffix": "x"}, "suffix", "cannot insert"),
        (TEXT, {"suffix": "x", "echo": True}, "suffix", "either 'suffix' or 'echo'"),
        (TEXT, {"prompt_embeds": "x"}, "prompt_embeds", "text or token ids"),
        (TEXT, {"n_predict": -3}, "n_predict", ">= -2"),
        (TEXT, {"prompt_logprobs": 21}, "prompt_logprobs", "<= 20"),
        (TEXT, {"prompt_logprobs": 0, "stream": True}, "prompt_logprobs", "when 'stream' is true"),
        (TEXT, {"truncate_prompt_tokens": 0}, "prompt", "no tokens"),
        (TEXT, {"truncate_prompt_tokens": -2}, "truncate_prompt_tokens", ">= -1"),
        (TEXT, {"allowed_token_ids": []}, "allowed_token_ids", "length >= 1"),
        (TEXT, {"allowed_token_ids": [9999]}, "allowed_token_ids", "9999 is no token id"),
        (TEXT, {"bad_words": [""]}, "bad_words[0]", "length >= 1"),
        (TEXT, {"cache_salt": ""}, "cache_salt", "length >= 1"),
        (TEXT, {"use_beam_search": True}, "use_beam_search", "Beam search is not supported"),
        (TEXT, {"length_penalty": 2}, "length_penalty", "Beam search"),
        (TEXT, {"early_stopping": "never"}, "early_stopping", "Beam search"),
        (CHAT, {"mirostat": 2}, "mirostat", "sampler is not supported"),
        (CHAT, {"typical_p": 0.9}, "typical_p", "sampler is not supported"),
        (CHAT, {"tfs_z": 0.9}, "tfs_z", "sampler is not supported"),
        (CHAT, {"top_n_sigma": 1}, "top_n_sigma", "sampler is not supported"),
        (CHAT, {"dynatemp_range": 0.5}, "dynatemp_range", "sampler is not supported"),
        (CHAT, {"dry_multiplier": 0.8}, "dry_multiplier", "sampler is not supported"),
        (CHAT, {"xtc_probability": 0.5}, "xtc_probability", "sampler is not supported"),
        (CHAT, {"samplers": ["top_k"]}, "samplers", "one order"),
        (CHAT, {"logits_processors": ["x.Y"]}, "logits_processors", "no code of its clients"),
        (CHAT, {"t_max_predict_ms": 500}, "t_max_predict_ms", "not by time"),
        (CHAT, {"n_probs": 3}, "n_probs", "'logprobs'"),
        (CHAT, {"chat_template": "{{ 1 }}"}, "chat_template", "is code"),
        (CHAT, {"prediction": {"type": "text"}}, "prediction.type", "'text' is not supported"),
        (CHAT, {"verbosity": "loud"}, "verbosity", "'loud' is not supported"),
        (
            CHAT,
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "not both",
        ),
        (
            CHAT,
            {
                "messages": [*USER, {"role": "assistant", "content": None, "refusal": "No."}],
                "continue_final_message": True,
            },
            "continue_final_message",
            "no last message with content",
        ),
    ],
)
def test_what_cannot_be_served_is_said_plainly(
    client: TestClient, path: str, fields: dict[str, Any], param: str, message: str
) -> None:
    error = refused(client, path, GOOD[path] | fields)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_too_long_a_prompt_names_both_numbers(client: TestClient) -> None:
    error = refused(client, TEXT, GOOD[TEXT] | {"prompt": [5] * 300})
    assert error["code"] == "context_length_exceeded"
    assert "256 tokens" in error["message"]
    assert "300 tokens" in error["message"]
    error = refused(client, TEXT, GOOD[TEXT] | {"prompt": [5] * 200, "max_tokens": 57})
    assert error["code"] == "context_length_exceeded"
    assert "257 tokens (200 in the prompt, 57 for the completion)" in error["message"]
    longest = len("<|endoftext|>")
    error = refused(client, TEXT, GOOD[TEXT] | {"prompt": "a" * (257 * longest)})
    assert "at least 257 tokens" in error["message"]


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    error = refused(client, CHAT, GOOD[CHAT] | {"model": "gpt-4"}, 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "valid JSON"),
        (b"nope", "valid JSON"),
        (b'{"model": "x"', "valid JSON"),
        (b'{"model": "\xff"}', "valid JSON"),
        (b'{"model": "\\ud800"}', "valid JSON"),
        (b"[]", "expected an object, got an array"),
        (b"null", "expected an object, got null"),
        (b'"x"', "expected an object, got a string"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"messages": ' + b'{"a":' * 80 + b"1" + b"}" * 81, "nested more than 64 levels"),
        (b'{"n": 1e999}', "out of range"),
        (b'{"n": NaN}', "valid JSON"),
    ],
)
def test_a_body_that_is_no_json_object(client: TestClient, body: bytes, message: str) -> None:
    result = client.simulate_post(CHAT, body=body, headers={"content-type": "application/json"})
    assert result.status_code == 400
    assert message in result.json["error"]["message"]


def test_deep_looking_strings_are_not_deep(client: TestClient) -> None:
    body = GOOD[TEXT] | {"prompt": '[{"\\' * 40, "user": "[" * 100}
    result = client.simulate_post(TEXT, json=body)
    assert result.status_code == 200, result.text


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
)
def test_another_content_type_is_refused_with_the_right_one(client: TestClient, kind: str) -> None:
    result = client.simulate_post(TEXT, body=json.dumps(GOOD[TEXT]), headers={"content-type": kind})
    assert result.status_code == 400
    assert "Content-Type: application/json" in result.json["error"]["message"]


# No subnormals: an engine that ran in this process has set it to treat them as zero.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [field.name for kind in (ChatRequest, CompletionRequest) for field in msgspec.structs.fields(kind)]
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "x"]) | JSON,
            "content": st.text()
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": JSON}))
            | JSON,
            "tool_calls": JSON,
            "tool_call_id": JSON,
        },
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([CHAT, TEXT]), BODIES, MESSAGES | st.none())
def test_wild_json_is_answered_or_refused(client: TestClient, path: str, fields: Any, messages: Any) -> None:
    body = GOOD[path] | fields | ({"messages": messages} if messages is not None else {})
    result = client.simulate_post(path, body=json.dumps(body), headers={"content-type": "application/json"})
    assert result.status_code in (200, 400, 404), result.text
    if result.status_code != 200:
        assert sorted(result.json["error"]) == ["code", "message", "param", "type"]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([CHAT, TEXT, "/v1/tokenize", "/v1/detokenize"]),
    st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_wild_bodies_are_refused(client: TestClient, path: str, body: bytes) -> None:
    result = client.simulate_post(path, body=body, headers={"content-type": "application/json"})
    assert result.status_code == 400, result.text
    assert sorted(result.json["error"]) == ["code", "message", "param", "type"]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
def test_wild_paths_are_unknown(client: TestClient, tail: str) -> None:
    result = client.simulate_get("/v1/models/" + tail.replace("?", "").replace("#", ""))
    assert result.status_code in (200, 400, 404)
    assert result.headers["content-type"] == "application/json"
