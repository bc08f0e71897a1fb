"""Thoughts, text and calls as a response's items: streamed and plain alike, whatever the pieces."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from basert.errors import EngineFailed
from basert.messages import Sampling
from basert.resources.responding import Answer
from basert.resources.response_writer import ResponseWriter, begun
from basert.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage
from basert.schema.response_object import ResponseObject
from basert.schema.responses import ResponsesRequest
from basert.text.parts import CallArguments, CallStart, Part, Text, Thought
from basert.text.streaming import Piece
from tests.http.fakes import FakeModels

USAGE = Usage(7, 5, 12, PromptTokensDetails(4), CompletionTokensDetails(2))
SAID: list[list[Part]] = [
    [Thought("Let me ")],
    [Thought("see."), Text("I ")],
    [],
    [Text("look.")],
    [CallStart(0, "find"), CallArguments(0, '{"x"')],
    [CallArguments(0, ":1}"), CallStart(1, "stop")],
    [CallArguments(1, "{}")],
]


@pytest.fixture
def kept() -> list[ResponseObject]:
    return []


@pytest.fixture
def writer(models: FakeModels, kept: list[ResponseObject]) -> ResponseWriter:
    sampling = Sampling(temperature=0.5, seed=1)
    response = begun(ResponsesRequest(), "resp_1", models.model, sampling, stored=True)  # type: ignore[arg-type]
    return ResponseWriter(response, models.model, kept.append)  # type: ignore[arg-type]


def pieces(said: list[list[Part]], finish: str) -> list[Piece]:
    last = len(said) - 1
    return [Piece(0, parts, 1, finish if n == last else None) for n, parts in enumerate(said)]


def data(events: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one.partition(b"data: ")[2]) for one in events.split(b"\n\n") if one]


def told(writer: ResponseWriter, said: list[list[Part]], finish: str = "stop") -> list[dict[str, Any]]:
    chunks = [msgspec.to_builtins(event) for piece in pieces(said, finish) for event in writer.chunks(piece)]
    return chunks + data(writer.ending(USAGE))


def folded(writer: ResponseWriter, said: list[list[Part]], finish: str = "stop") -> dict[str, Any]:
    answer = Answer()
    for piece in pieces(said, finish):
        answer.add(piece)
    whole: dict[str, Any] = msgspec.to_builtins(writer.whole([answer], USAGE))
    return whole


def bare(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is drawn."""
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in items]


def test_thoughts_text_and_calls_are_items(writer: ResponseWriter, kept: list[ResponseObject]) -> None:
    events = told(writer, SAID)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == [0, 1, 2, 3]
    assert [event["item"]["id"] for event in added] == [item["id"] for item in done]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call", "function_call"]
    thoughts, message, find, stop = done
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert message["content"][0]["text"] == "I look."
    assert (find["name"], find["arguments"], find["status"]) == ("find", '{"x":1}', "completed")
    assert stop["arguments"] == "{}"
    assert find["call_id"] != stop["call_id"]
    deltas = [e for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert [(e["output_index"], e["delta"]) for e in deltas] == [(2, '{"x"'), (2, ":1}"), (3, "{}")]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"] == done
    assert events[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert events[-1]["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert [one.status for one in kept] == ["completed"]


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_plain_and_streamed_say_the_same(models: FakeModels, finish: str) -> None:
    def fresh() -> ResponseWriter:
        response = begun(ResponsesRequest(), "resp_1", models.model, Sampling(seed=1), stored=False)  # type: ignore[arg-type]
        return ResponseWriter(response, models.model, lambda _: None)  # type: ignore[arg-type]

    streamed, plain = told(fresh(), SAID, finish)[-1]["response"], folded(fresh(), SAID, finish)
    assert bare(streamed["output"]) == bare(plain["output"])
    assert [streamed[key] for key in ("status", "usage")] == [plain[key] for key in ("status", "usage")]
    assert plain["output"][-1]["status"] == ("completed" if finish == "stop" else "incomplete")


def test_an_answer_without_a_word_is_an_empty_message(writer: ResponseWriter) -> None:
    events = told(writer, [[]])
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""
    assert [event["type"] for event in events].count("response.output_item.done") == 1


def test_a_failure_tells_what_there_was(writer: ResponseWriter, kept: list[ResponseObject]) -> None:
    for piece in pieces(SAID, "stop")[:5]:
        list(writer.chunks(piece))
    (last,) = data(writer.failure(EngineFailed("It died.")))
    assert last["response"]["error"] == {"code": "server_error", "message": "It died."}
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "completed", "incomplete"]
    assert kept[0].status == "failed"
