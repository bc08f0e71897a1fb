"""/v1/messages on the wire, plain and streamed, its errors, and its count of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from falcon.testing import ASGIConductor

from basert.errors import EngineFailed, Overloaded
from tests.http.asking import typed_events
from tests.http.fakes import FakeModels, fake_app
from tests.tiny import SENTENCE

BODY = {
    "model": "org/tiny",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 100,
    "temperature": 0,
}
Json = dict[str, Any]


async def plain(client: ASGIConductor, **fields: Any) -> Json:
    result = await client.simulate_post("/v1/messages", json=BODY | fields)
    assert result.status_code == 200, result.text
    return result.json


async def streamed(client: ASGIConductor, **fields: Any) -> list[Json]:
    result = await client.simulate_post("/v1/messages", json=BODY | {"stream": True} | fields)
    return typed_events(result.text)


async def test_a_plain_message_has_every_field(client: ASGIConductor, models: FakeModels) -> None:
    message = await plain(client)
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "org/tiny",
        "content": [{"type": "text", "text": SENTENCE}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(models.model.engine.submitted[0][0]),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(models.model.text.encode(SENTENCE)) + 1,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


async def test_a_stream_tells_of_every_step(client: ASGIConductor) -> None:
    events = await streamed(client)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * len(deltas),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    whole = await plain(client)
    begun = events[0]["message"]
    assert (begun["content"], begun["stop_reason"]) == ([], None)
    assert begun["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert events[2]["content_block"] == {"type": "text", "text": ""}
    assert {delta["type"] for delta in deltas} == {"text_delta"}
    assert "".join(delta["text"] for delta in deltas) == SENTENCE
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"] == whole["usage"]


@pytest.mark.parametrize("stop", [["wor"], ["nowhere", "wor"]])
async def test_the_stop_sequence_is_told(client: ASGIConductor, stop: list[str]) -> None:
    message = await plain(client, stop_sequences=stop)
    assert message["content"][0]["text"] == SENTENCE.partition("wor")[0]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "wor")
    *_, delta, _ = await streamed(client, stop_sequences=stop)
    assert delta["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "wor"}


async def test_an_answer_cut_off_says_by_what(client: ASGIConductor, models: FakeModels) -> None:
    assert (await plain(client, max_tokens=3))["stop_reason"] == "max_tokens"
    words = "the user " * 10
    while len(models.model.text.encode(words)) < models.model.info.max_context - 24:
        words += " user"
    messages = [{"role": "user", "content": words}]
    message = await plain(client, messages=messages, max_tokens=5000)
    assert message["stop_reason"] == "model_context_window_exceeded"


async def test_blocks_become_the_conversation_that_they_are(
    client: ASGIConductor, models: FakeModels
) -> None:
    text = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "content": [text, {"type": "text", "text": "there"}]},
        {"role": "user", "content": "!"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Ho"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "2"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    await plain(client, messages=messages, system=system)
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    as_chat = [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "Hi\nthere\n!"},
        {"role": "assistant", "reasoning_content": "Hm.", "content": "Ho", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "2"},
        {"role": "user", "content": "So?"},
    ]
    await client.simulate_post("/v1/chat/completions", json={"model": "org/tiny", "messages": as_chat})
    ours, chats = (ids for ids, _ in models.model.engine.submitted)
    assert ours == chats


async def test_an_answer_goes_on_with_the_assistants_last_words(
    client: ASGIConductor, models: FakeModels
) -> None:
    begun = {"role": "assistant", "content": "Well,"}
    messages = [*BODY["messages"], begun]
    await plain(client, messages=messages)
    text = models.model.text.decode(models.model.engine.submitted[-1][0], skip_special=False)
    assert text.endswith("<|im_start|>assistant\nWell,")


async def test_sampling_reaches_the_engine(client: ASGIConductor, models: FakeModels) -> None:
    await plain(client, temperature=0.5, top_p=0.9, top_k=7)
    sampling = models.model.engine.submitted[0][1]
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)


async def test_tokens_counted_are_the_prompts(client: ASGIConductor) -> None:
    body = {key: value for key, value in BODY.items() if key not in ("max_tokens", "temperature")}
    body["system"] = "Be brief."
    counted = await client.simulate_post("/v1/messages/count_tokens", json=body)
    usage = (await plain(client, system="Be brief."))["usage"]
    assert counted.json == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_what_adds_nothing_is_taken(client: ASGIConductor) -> None:
    fields = ["system", "stop_sequences", "tools", "tool_choice", "thinking", "metadata", "stream", "top_k"]
    await plain(client, **dict.fromkeys(fields))
    thinking = {"type": "enabled", "budget_tokens": 1024}
    await plain(client, thinking=thinking, metadata={"user_id": "me"}, service_tier="auto", tools=[])
    await plain(client, thinking={"type": "adaptive"}, output_config={"effort": "low"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "'image' is not supported"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"messages": [{"role": "user", "content": "the user " * 500}]}, "maximum context length"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: ASGIConductor, fields: Json, said: str
) -> None:
    result = await client.simulate_post("/v1/messages", json=BODY | fields)
    assert result.status_code == 400
    assert (result.json["type"], result.json["error"]["type"]) == ("error", "invalid_request_error")
    assert said in result.json["error"]["message"]
    assert result.json["request_id"] == result.headers["request-id"] == result.headers["x-request-id"]


async def test_errors_have_anthropics_form(client: ASGIConductor, models: FakeModels) -> None:
    async def kind(status: int, path: str = "/v1/messages", **fields: Any) -> str:
        result = await client.simulate_post(path, json=BODY | fields)
        assert result.status_code == status
        return result.json["error"]["type"]

    assert await kind(404, model="nothing") == "not_found_error"
    assert await kind(404, "/v1/messages/batches") == "not_found_error"
    assert (await client.simulate_get("/v1/messages")).json["error"]["type"] == "invalid_request_error"
    models.draining = True
    assert await kind(503) == "overloaded_error"
    models.draining = False
    models.model.engine.error = Overloaded("The queue is full.", retry_after=1.0)
    assert await kind(429, stream=True) == "rate_limit_error"
    models.model.engine.error = EngineFailed("The engine died.")
    assert await kind(500) == "api_error"
    models.model.engine.error_after = 2
    *_, last = await streamed(client)
    assert last["type"] == "error"
    assert last["error"] == {"type": "api_error", "message": "The engine died."}
    assert last["request_id"]


async def test_a_key_comes_as_x_api_key(models: FakeModels) -> None:
    async with ASGIConductor(fake_app(models, api_key=("sesame",))) as client:
        for headers, status in [({"x-api-key": "sesame"}, 200), ({"x-api-key": "x"}, 401), ({}, 401)]:
            result = await client.simulate_post("/v1/messages", json=BODY, headers=headers)
            assert result.status_code == status
        assert result.json["error"]["type"] == "authentication_error"
        bearer = {"Authorization": "Bearer sesame", "x-api-key": "x"}
        assert (await client.simulate_post("/v1/messages", json=BODY, headers=bearer)).status_code == 200
