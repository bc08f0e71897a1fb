"""Thoughts, text and calls as Anthropic's content blocks, streamed and plain."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from basert.resources.message_writer import MessageWriter
from basert.resources.responding import Answer
from basert.schema.anthropic import MessagesRequest
from basert.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage
from basert.text.parts import CallArguments, CallStart, Part, Text, Thought
from basert.text.streaming import Piece

USAGE = Usage(7, 5, 12, PromptTokensDetails(4), CompletionTokensDetails(2))
SAID: list[list[Part]] = [
    [Thought("Let me ")],
    [Thought("see."), Text("I ")],
    [],
    [Text("look.")],
    [CallStart(0, "find"), CallArguments(0, '{"x"')],
    [CallArguments(0, ":1}"), CallStart(1, "halt")],
    [CallArguments(1, '{"y":')],
    [CallArguments(1, "2}")],
]


def writer(*, shortened: bool = False) -> MessageWriter:
    return MessageWriter("tiny", "req_1", 7, shortened=shortened)


def pieces(said: list[list[Part]], finish: str) -> list[Piece]:
    last = len(said) - 1
    return [
        Piece(0, parts, 1, finish if n == last else None, cached=0 if n else 4)
        for n, parts in enumerate(said)
    ]


def told(said: list[list[Part]], finish: str = "stop") -> list[dict[str, Any]]:
    one = writer()
    events = [msgspec.to_builtins(event) for piece in pieces(said, finish) for event in one.chunks(piece)]
    ending = one.ending(USAGE).split(b"\n\n")[:-1]
    return events + [msgspec.json.decode(event.partition(b"data: ")[2]) for event in ending]


def folded(said: list[list[Part]], finish: str = "stop") -> dict[str, Any]:
    answer = Answer()
    for piece in pieces(said, finish):
        answer.add(piece)
    whole: dict[str, Any] = msgspec.to_builtins(writer().whole([answer], USAGE))
    return whole


def test_a_plain_message_has_all_kinds_of_blocks() -> None:
    message = folded(SAID)
    thinking, text, find, halt = message["content"]
    assert thinking == {"type": "thinking", "thinking": "Let me see.", "signature": ""}
    assert text == {"type": "text", "text": "I look."}
    assert (find["name"], find["input"]) == ("find", {"x": 1})
    assert (halt["name"], halt["input"]) == ("halt", {"y": 2})
    assert find["id"] != halt["id"]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }


def test_a_stream_opens_and_closes_each_block() -> None:
    events = told(SAID)
    usage = events[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (3, 4)
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [start["index"] for start in starts] == [0, 1, 2, 3]
    kinds = [start["content_block"]["type"] for start in starts]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert starts[2]["content_block"]["input"] == {}
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2, 3]
    deltas = [(event["index"], event["delta"]) for event in events if event["type"] == "content_block_delta"]
    assert deltas[0] == (0, {"type": "thinking_delta", "thinking": "Let me "})
    arguments = [delta["partial_json"] for index, delta in deltas if index == 2]
    assert "".join(arguments) == '{"x":1}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("end", [-1, -2])
def test_a_call_cut_off_is_not_made_to_look_whole(end: int) -> None:
    message = folded(SAID[:end], "length")
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["stop_reason"] == "max_tokens"


def test_a_call_without_arguments_has_none() -> None:
    assert folded([[CallStart(0, "now")]])["content"][0]["input"] == {}


def test_nothing_said_is_no_block() -> None:
    assert folded([[]])["content"] == []
    assert [event["type"] for event in told([[]])] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]


def asked(**fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | fields
    return msgspec.convert(body, MessagesRequest).to_chat()


def test_tools_are_asked_for_as_chat_has_them() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = [{"name": "f", "description": "Finds.", "input_schema": schema}]
    request = asked(tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    function = request.tools[0].function
    assert (function.name, function.description, function.parameters) == ("f", "Finds.", schema)
    assert (request.tool_choice, request.parallel_tool_calls) == ("required", False)
    named = asked(tools=tools, tool_choice={"type": "tool", "name": "f"}).tool_choice
    assert named == {"type": "function", "function": {"name": "f"}}
    for mode in ("auto", "none"):
        assert asked(tools=tools, tool_choice={"type": mode}).tool_choice == mode
        assert asked(tool_choice={"type": mode}).tool_choice is None


def test_calls_and_results_are_told_as_chat_has_them() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "is_error": True}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    _, assistant, tool = (one.to_template() for one in asked(messages=messages).messages)
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert (tool["role"], tool["content"], tool["tool_call_id"]) == ("tool", "", "t1")


def test_thinking_is_switched_for_the_template() -> None:
    assert asked().chat_template_kwargs is None
    assert asked(thinking={"type": "disabled"}).chat_template_kwargs["enable_thinking"] is False
    assert asked(thinking={"type": "adaptive"}).chat_template_kwargs["enable_thinking"] is True
