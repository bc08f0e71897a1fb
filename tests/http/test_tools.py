"""Tools over the wire: what the prompt says of them, what the engine is held to, what clients get back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import ASGIConductor

from basert.manifest import CHAT_TEMPLATE
from basert.text import load
from tests.http.fakes import FakeModels, fake_app

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture
def models(tmp_path: Path) -> FakeModels:
    return FakeModels(tmp_path, max_context=8192)  # room for tools in the prompt


@pytest.fixture
async def client(models: FakeModels) -> AsyncIterator[ASGIConductor]:
    async with ASGIConductor(fake_app(models)) as conductor:
        yield conductor


async def chat(client: ASGIConductor, **fields: Any) -> dict[str, Any]:
    body = {"model": "org/tiny", "messages": ASK, "tools": [WEATHER]} | fields
    result = await client.post("/v1/chat/completions", json=body)
    assert result.status_code == 200, result.text
    return result.json


def choice_of(answer: dict[str, Any]) -> dict[str, Any]:
    [choice] = answer["choices"]
    return choice


async def test_a_call_is_an_object_with_an_id(client: ASGIConductor, models: FakeModels) -> None:
    models.get("org/tiny").engine.says = CALL
    choice = choice_of(await chat(client))
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("auto", "tool_calls"), ("required", "tool_calls"), (WEATHER, "stop")],
)
async def test_who_chose_tells_how_it_finishes(
    client: ASGIConductor, models: FakeModels, choice: Any, finish: str
) -> None:
    models.get("org/tiny").engine.says = CALL
    named = {"type": "function", "function": {"name": "weather"}} if choice is WEATHER else choice
    assert choice_of(await chat(client, tool_choice=named))["finish_reason"] == finish


async def test_a_call_that_was_cut_stays_cut(client: ASGIConductor, models: FakeModels) -> None:
    models.get("org/tiny").engine.says = CALL
    whole = len(models.get("org/tiny").text.encode(CALL, add_special=False))
    choice = choice_of(await chat(client, max_tokens=whole - 20))
    assert choice["finish_reason"] == "length"
    [call] = choice["message"]["tool_calls"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(call["function"]["arguments"])


async def test_a_stream_names_the_function_first_and_then_only_adds_arguments(
    client: ASGIConductor, models: FakeModels
) -> None:
    models.get("org/tiny").engine.says = f"I look.\n{CALL}\n{CALL}"
    body = {"model": "org/tiny", "messages": ASK, "tools": [WEATHER], "stream": True}
    result = await client.post("/v1/chat/completions", json=body)
    lines = [line.removeprefix("data: ") for line in result.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0] for line in lines[:-1]]
    calls = [call for one in deltas for call in one["delta"].get("tool_calls", [])]
    for index in (0, 1):
        first, *rest = [call for call in calls if call["index"] == index]
        assert first["function"] == {"name": "weather", "arguments": ""}
        assert first["type"] == "function"
        assert first["id"]
        assert all(
            set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in rest
        )
        assert json.loads("".join(call["function"]["arguments"] for call in rest)) == {"city": "Oslo"}
    assert len({call["id"] for call in calls if "id" in call}) == 2
    assert "".join(one["delta"].get("content") or "" for one in deltas) == "I look."
    assert deltas[-1] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}


async def test_a_model_whose_template_knows_no_tools_is_told_of_them(
    client: ASGIConductor, models: FakeModels
) -> None:
    engine, text = models.get("org/tiny").engine, models.get("org/tiny").text
    await chat(client)
    await chat(client, tool_choice="none")
    history = [
        *ASK,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": FUNCTION}]},
        {"role": "tool", "tool_call_id": "c", "content": "rain"},
    ]
    await chat(client, messages=history, tools=None)
    told, silent, after = (text.decode(prompt, skip_special=False) for prompt, _ in engine.submitted)
    assert "system" in told
    assert '"name": "weather"' in told
    assert "weather" not in silent
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in after
    assert "<tool_response>\nrain\n</tool_response>" in after
    required, none, _ = (request.grammar for request in engine.requests)
    assert required is not None
    assert required.field == "tools"
    assert none is None


FUNCTION = {"name": "weather", "arguments": '{"city": "Oslo"}'}


async def test_calls_are_text_where_none_may_be_made(client: ASGIConductor, models: FakeModels) -> None:
    models.get("org/tiny").engine.says = CALL
    for fields in ({"tool_choice": "none"}, {"tools": None}):
        choice = choice_of(await chat(client, **fields))
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"
        assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_are_told_from_the_answer_and_counted(
    client: ASGIConductor, models: FakeModels, stream: bool
) -> None:
    model = models.get("org/tiny")
    template = model.bundle / CHAT_TEMPLATE
    template.write_text(template.read_text() + "{# <think> </think> #}")
    model.text = load(model.bundle)
    model.engine.says = "<think>\nHm, a hello.\n</think>\n\nHello!"
    body = {"model": "org/tiny", "messages": ASK, "stream": stream}
    if stream:
        result = await client.post("/v1/chat/completions", json=body)
        deltas = [
            json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            for line in result.text.split("\n\n")
            if line and "[DONE]" not in line
        ]
        said = "".join(delta.get("content") or "" for delta in deltas)
        thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    else:
        answer = await chat(client, tools=None)
        message = choice_of(answer)["message"]
        said, thought = message["content"], message["reasoning_content"]
        usage = answer["usage"]
        assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    assert said == "Hello!"
    assert thought.strip() == "Hm, a hello."
