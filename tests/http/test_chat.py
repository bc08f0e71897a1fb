"""Chat completions on the wire, plain and streamed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from falcon.testing import ASGIConductor

from basert.errors import EngineFailed, Overloaded
from basert.schema.chat import ChatRequest
from tests.http.fakes import FakeModels
from tests.tiny import SENTENCE

BODY = {"model": "org/tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


async def plain(client: ASGIConductor, **fields: Any) -> dict[str, Any]:
    result = await client.simulate_post("/v1/chat/completions", json=BODY | fields)
    assert result.status_code == 200, result.text
    return result.json


async def chunks(client: ASGIConductor, **fields: Any) -> list[dict[str, Any]]:
    result = await client.simulate_post("/v1/chat/completions", json=BODY | {"stream": True} | fields)
    assert result.headers["content-type"].startswith("text/event-stream")
    assert result.headers["cache-control"] == "no-cache"
    assert result.headers["x-accel-buffering"] == "no"
    *events, done, rest = result.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def said(events: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def test_a_plain_answer_has_every_field(client: ASGIConductor, models: FakeModels) -> None:
    answer = await plain(client)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert isinstance(answer["created"], int)
    assert answer["model"] == "org/tiny"
    assert answer["system_fingerprint"] == f"fp_{models.model.digest[:12]}"
    message = {"role": "assistant", "content": SENTENCE, "refusal": None}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    prompt = len(models.model.engine.submitted[0][0])
    spoken = len(models.model.text.encode(SENTENCE)) + 1
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": spoken,
        "total_tokens": prompt + spoken,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_a_stream_begins_with_the_role_and_ends_with_the_reason(client: ASGIConductor) -> None:
    events = await chunks(client)
    first, *middle, last = events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(event["choices"][0]["delta"]) == {"content"} for event in middle)
    assert [event["choices"][0]["finish_reason"] for event in (first, *middle)] == [None] * (len(middle) + 1)
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert said(events) == SENTENCE
    assert {(event["id"], event["created"], event["object"]) for event in events} == {
        (first["id"], first["created"], "chat.completion.chunk")
    }
    assert not any("usage" in event for event in events)
    assert "\ufffd" not in said(events)


async def test_usage_is_the_last_chunk_of_a_stream_that_asks_for_it(client: ASGIConductor) -> None:
    *others, last = await chunks(client, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in others)
    assert last["choices"] == []
    assert last["usage"] == (await plain(client))["usage"]


async def test_several_choices_share_an_id_and_have_seeds_of_their_own(
    client: ASGIConductor, models: FakeModels
) -> None:
    events = await chunks(client, n=3, seed=7)
    assert [said(events, index) for index in range(3)] == [SENTENCE] * 3
    assert sorted(sampling.seed for _, sampling in models.model.engine.submitted) == [7, 8, 9]
    assert [choice["index"] for choice in (await plain(client, n=3))["choices"]] == [0, 1, 2]


async def test_max_completion_tokens_wins_over_max_tokens(client: ASGIConductor) -> None:
    answer = await plain(client, max_tokens=9, max_completion_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_half_a_character_at_the_end_is_not_sent(client: ASGIConductor) -> None:
    events = await chunks(client, max_tokens=4)  # the fourth token is the first half of ü
    answer = await plain(client, max_tokens=4)
    assert said(events) == answer["choices"][0]["message"]["content"] == " Gr"
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("stop", ["wor", ["xyz", "wor"], ["d \U0001f30d", "world", "wor"]])
async def test_a_stop_string_is_cut(client: ASGIConductor, models: FakeModels, stop: object) -> None:
    answer = await plain(client, stop=stop)
    assert answer["choices"][0]["message"]["content"] == " Grüße, "
    assert answer["choices"][0]["finish_reason"] == "stop"
    events = await chunks(client, stop=stop)
    assert said(events) == " Grüße, "
    assert models.model.engine.open == 0


async def test_logprobs_tell_the_bytes_of_each_token_of_the_text(client: ASGIConductor) -> None:
    choice = (await plain(client, logprobs=True, top_logprobs=2))["choices"][0]
    scores = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert bytes(byte for score in scores for byte in score["bytes"]).decode() == SENTENCE
    assert scores[0] == {
        "token": " ",
        "logprob": -0.25,
        "bytes": [32],
        "top_logprobs": [
            {"token": " ", "logprob": -0.25, "bytes": [32]},
            {"token": "<|endoftext|>", "logprob": -9999.0, "bytes": list(b"<|endoftext|>")},
        ],
    }
    assert {"token": "\\xf0", "logprob": -0.25, "bytes": [0xF0], "top_logprobs": scores[0]["top_logprobs"]}[
        "token"
    ] in {score["token"] for score in scores}
    streamed = await chunks(client, logprobs=True, top_logprobs=2)
    parts = [event["choices"][0]["logprobs"] for event in streamed]
    assert [score for part in parts if part for score in part["content"]] == scores


@pytest.mark.parametrize("fields", [{}, {"stop": "wor"}, {"stop": SENTENCE + "?"}, {"max_tokens": 4}])
async def test_each_choice_s_logprobs_are_streamed_with_its_text(
    client: ASGIConductor, fields: dict[str, Any]
) -> None:
    asked = {"logprobs": True, "n": 2, **fields}
    events = [event["choices"][0] for event in await chunks(client, **asked)]
    for choice in (await plain(client, **asked))["choices"]:
        told = [event["logprobs"] for event in events if event["index"] == choice["index"]]
        scores = choice["logprobs"]["content"]
        assert [score for part in told if part for score in part["content"]] == scores
        raw = bytes(byte for score in scores for byte in score["bytes"])
        assert raw.startswith(choice["message"]["content"].encode())
        assert "<|im_end|>" not in [score["token"] for score in scores]


async def test_conversations_reach_the_template_as_transformers_would_have_them(
    client: ASGIConductor, models: FakeModels
) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief.", "name": None},
        {"role": "user", "content": parts, "unknown": [1]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]
    await plain(
        client, messages=messages, tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none"
    )
    assert models.model.text.decode(models.model.engine.submitted[0][0], skip_special=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi\nthere<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"  # the template knows no tools
        "<|im_start|>assistant\nNo.<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_nulls_are_absent_and_unknown_fields_ignored(client: ASGIConductor) -> None:
    fields = [
        one.name for one in msgspec.structs.fields(ChatRequest) if not one.required and one.name != "model"
    ]
    answer = await plain(client, **dict.fromkeys(fields), brand_new_field={"a": 1})
    assert answer["choices"][0]["message"]["content"] == SENTENCE
    answer = await plain(client, response_format={"type": "text"}, store=True, metadata={"a": "b"}, user="me")
    assert answer["choices"][0]["message"]["content"] == SENTENCE


async def test_sampling_reaches_the_engine(client: ASGIConductor, models: FakeModels) -> None:
    await plain(client, temperature=0.5, top_p=0.9, top_k=-1, min_p=0.1, seed=-1, logit_bias={"5": 2})
    sampling = models.model.engine.submitted[0][1]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 0, 0.1)
    assert (sampling.seed, sampling.logit_bias) == (2**64 - 1, {5: 2.0})


async def test_what_a_request_leaves_open_the_checkpoint_decides(
    client: ASGIConductor, models: FakeModels
) -> None:
    (models.model.bundle / "generation.json").write_text('{"temperature": 0.3, "top_k": 20}')
    await client.simulate_post("/v1/chat/completions", json={**BODY, "temperature": None})
    sampling = models.model.engine.submitted[0][1]
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.3, 20, 1.0)


async def test_template_arguments_cannot_take_the_place_of_our_own(
    client: ASGIConductor, models: FakeModels
) -> None:
    names = ["messages", "self", "tools", "model", "config", "documents"]
    await plain(client)
    await plain(client, chat_template_kwargs=dict.fromkeys(names, "x"))
    await plain(client, chat_template_kwargs={"add_generation_prompt": False})
    first, second, third = (ids for ids, _ in models.model.engine.submitted)
    assert first == second
    assert len(third) < len(first)


async def test_a_request_without_a_seed_gets_one(client: ASGIConductor, models: FakeModels) -> None:
    await plain(client)
    await plain(client)
    first, second = (sampling.seed for _, sampling in models.model.engine.submitted)
    assert first != second


async def test_a_refusal_by_the_engine_comes_before_the_stream_begins(
    client: ASGIConductor, models: FakeModels
) -> None:
    models.model.engine.error = Overloaded("The queue is full.", retry_after=1.0)
    result = await client.simulate_post("/v1/chat/completions", json=BODY | {"stream": True})
    assert (result.status_code, result.headers["retry-after"]) == (429, "1")
    assert result.json["error"]["code"] == "queue_full"


async def test_a_failure_in_a_stream_is_its_last_event(client: ASGIConductor, models: FakeModels) -> None:
    models.model.engine.error, models.model.engine.error_after = EngineFailed("The engine died."), 2
    result = await client.simulate_post("/v1/chat/completions", json=BODY | {"stream": True})
    *_, last, rest = result.text.split("\n\n")
    error = {"message": "The engine died.", "type": "server_error", "param": None, "code": "engine_failed"}
    assert json.loads(last.removeprefix("data: ")) == {"error": error}
    assert rest == ""
    assert (await client.simulate_post("/v1/chat/completions", json=BODY)).status_code == 500


async def test_a_strange_failure_is_told_without_particulars(
    client: ASGIConductor, models: FakeModels, caplog: pytest.LogCaptureFixture
) -> None:
    models.model.engine.error = ZeroDivisionError("secret")
    result = await client.simulate_post("/v1/chat/completions", json=BODY)
    assert (result.status_code, result.json["error"]["code"]) == (500, "internal_error")
    assert "secret" not in result.text
    assert "ZeroDivisionError: secret" in caplog.text
