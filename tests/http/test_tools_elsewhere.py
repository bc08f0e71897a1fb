"""Tools and thoughts in the Responses API and in Anthropic's, from the request to what the client gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import ASGIConductor

from tests.http.fakes import FakeModels, fake_app

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
SAYS = f"<think>\nOslo it is.\n</think>\n\nI look.\n{CALL}"
RESPONSE = {
    "model": "org/tiny",
    "input": "hi",
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
}
MESSAGE = {
    "model": "org/tiny",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"name": "weather", "input_schema": SCHEMA}],
}
Json = dict[str, Any]


@pytest.fixture
def models(tmp_path: Path) -> FakeModels:
    models = FakeModels(tmp_path, max_context=8192)
    models.model.engine.says = SAYS
    return models


@pytest.fixture
async def client(models: FakeModels, tmp_path: Path) -> AsyncIterator[ASGIConductor]:
    async with ASGIConductor(fake_app(models, tmp_path / "responses", reasoning_format="think")) as conductor:
        yield conductor


async def post(client: ASGIConductor, path: str, body: Json, **fields: Any) -> Json:
    result = await client.simulate_post(path, json=body | fields)
    assert result.status_code == 200, result.text
    return result.json


async def last_event(client: ASGIConductor, path: str, body: Json) -> list[Json]:
    result = await client.simulate_post(path, json=body | {"stream": True})
    return [json.loads(one.partition("data: ")[2]) for one in result.text.split("\n\n") if one]


async def test_a_response_thinks_says_and_calls(client: ASGIConductor) -> None:
    response = await post(client, "/v1/responses", RESPONSE)
    thoughts, message, call = response["output"]
    assert thoughts["content"][0]["text"].strip() == "Oslo it is."
    assert message["content"][0]["text"] == "I look."
    assert (call["name"], call["arguments"], call["status"]) == ("weather", '{"city": "Oslo"}', "completed")
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    assert response["tools"][0]["name"] == "weather"
    events = await last_event(client, "/v1/responses", RESPONSE)
    again = events[-1]["response"]["output"]
    assert [item["type"] for item in again] == ["reasoning", "message", "function_call"]
    assert again[2]["arguments"] == call["arguments"]


async def test_a_result_is_the_next_requests_input(client: ASGIConductor, models: FakeModels) -> None:
    response = await post(client, "/v1/responses", RESPONSE)
    result = {"type": "function_call_output", "call_id": response["output"][2]["call_id"], "output": "rain"}
    models.model.engine.says = "It rains."
    fields = {"input": [result], "previous_response_id": response["id"]}
    second = await post(client, "/v1/responses", RESPONSE, **fields)
    assert second["output"][-1]["content"][0]["text"] == "It rains."
    prompt = models.model.text.decode(models.model.engine.submitted[-1][0])
    assert prompt.index("weather") < prompt.index("Oslo") < prompt.index("rain")


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "weather"},
        "required",
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
async def test_a_response_can_be_held_to_a_call(client: ASGIConductor, choice: Any) -> None:
    response = await post(client, "/v1/responses", RESPONSE, tool_choice=choice)
    assert (response["status"], response["tool_choice"]) == ("completed", choice)
    unknown = await client.simulate_post(
        "/v1/responses", json=RESPONSE | {"tool_choice": {"type": "function", "name": "f"}}
    )
    assert (unknown.status_code, unknown.json["error"]["param"]) == (400, "tool_choice")


async def test_a_message_thinks_says_and_calls(client: ASGIConductor) -> None:
    message = await post(client, "/v1/messages", MESSAGE)
    thinking, text, call = message["content"]
    assert thinking["thinking"].strip() == "Oslo it is."
    assert text["text"] == "I look."
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Oslo"})
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    events = await last_event(client, "/v1/messages", MESSAGE)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    arguments = "".join(delta.get("partial_json", "") for delta in deltas)
    assert json.loads(arguments) == {"city": "Oslo"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_tool_result_goes_on_with_the_message(client: ASGIConductor, models: FakeModels) -> None:
    message = await post(client, "/v1/messages", MESSAGE)
    models.model.engine.says = "It rains."
    result = {"type": "tool_result", "tool_use_id": message["content"][2]["id"], "content": "rain"}
    messages = [
        *MESSAGE["messages"],
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [result]},
    ]
    second = await post(client, "/v1/messages", MESSAGE, messages=messages)
    assert (second["content"][-1]["text"], second["stop_reason"]) == ("It rains.", "end_turn")
    body = {"model": "org/tiny", "messages": messages, "tools": MESSAGE["tools"]}
    counted = await post(client, "/v1/messages/count_tokens", body)
    assert counted["input_tokens"] == second["usage"]["input_tokens"]


@pytest.mark.parametrize("kind", ["any", "tool", "none"])
async def test_a_message_can_be_held_to_a_call(client: ASGIConductor, kind: str) -> None:
    choice = {"type": kind, "name": "weather"} if kind == "tool" else {"type": kind}
    message = await post(client, "/v1/messages", MESSAGE, tool_choice=choice)
    assert message["stop_reason"] == ("end_turn" if kind == "none" else "tool_use")


async def test_answers_can_be_held_to_a_schema(client: ASGIConductor, models: FakeModels) -> None:
    models.model.engine.says = '{"city": "Oslo"}'
    formed = {"type": "json_schema", "name": "place", "schema": SCHEMA}
    response = await post(client, "/v1/responses", RESPONSE, tools=None, text={"format": formed})
    assert response["text"]["format"] == formed
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    await post(client, "/v1/messages", MESSAGE, tools=None, output_config=config)
