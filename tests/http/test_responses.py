"""/v1/responses on the wire, plain and streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from falcon.testing import ASGIConductor

from basert.errors import EngineFailed, Overloaded
from tests.http.asking import BODY, Json, plain, prompt, refused, streamed
from tests.http.fakes import FakeModels, fake_app
from tests.tiny import SENTENCE


@pytest.fixture
async def client(models: FakeModels, tmp_path: Path) -> AsyncIterator[ASGIConductor]:
    async with ASGIConductor(fake_app(models, tmp_path / "responses")) as conductor:
        yield conductor


async def test_a_plain_response_has_every_field(client: ASGIConductor, models: FakeModels) -> None:
    response = await plain(client, instructions="Be brief.", metadata={"a": "b"}, user="me")
    (message,) = response.pop("output")
    assert response.pop("id").startswith("resp_")
    assert message.pop("id").startswith("msg_")
    assert isinstance(response.pop("created_at"), int)
    assert isinstance(response.pop("completed_at"), int)
    text = {"type": "output_text", "text": SENTENCE, "annotations": [], "logprobs": []}
    assert message == {"type": "message", "role": "assistant", "status": "completed", "content": [text]}
    asked = len(models.model.engine.submitted[0][0])
    spoken = len(models.model.text.encode(SENTENCE)) + 1
    assert response == {
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "background": False,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "metadata": {"a": "b"},
        "model": "org/tiny",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 0.0,
        "text": {"format": {"type": "text"}, "verbosity": None},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": spoken,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + spoken,
        },
        "user": "me",
    }


async def test_a_stream_tells_of_every_step(client: ASGIConductor) -> None:
    events = await streamed(client)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(deltas),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert "".join(delta["delta"] for delta in deltas) == SENTENCE == events[-4]["text"]
    message = events[-2]["item"]
    assert {event["item_id"] for event in events[3:-2]} == {message["id"]}
    last = events[-1]["response"]
    assert last["output"] == [message]
    whole = await plain(client)
    assert last["usage"] == whole["usage"]
    assert set(last) == set(whole)


async def test_an_answer_cut_off_is_incomplete(client: ASGIConductor) -> None:
    response = await plain(client, max_output_tokens=3)
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    *_, done, last = await streamed(client, max_output_tokens=3)
    assert done["item"]["status"] == "incomplete"
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


async def test_items_become_the_conversation_that_they_are(client: ASGIConductor, models: FakeModels) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Ho", "annotations": []}]},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
        {"type": "reasoning", "id": "rs_2", "summary": []},
    ]
    await plain(client, instructions="Be brief.", input=items)
    function = {"name": "f", "arguments": '{"x": 1}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "content": "Ho",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    await client.simulate_post("/v1/chat/completions", json={"model": "org/tiny", "messages": messages})
    ours, chats = (ids for ids, _ in models.model.engine.submitted)
    assert ours == chats


async def test_tokens_counted_are_the_prompts(client: ASGIConductor) -> None:
    first = await plain(client)
    fields = {"input": "And?", "instructions": "Be brief.", "previous_response_id": first["id"]}
    counted = await client.simulate_post("/v1/responses/input_tokens", json=BODY | fields)
    usage = (await plain(client, **fields))["usage"]
    assert counted.json == {"object": "response.input_tokens", "input_tokens": usage["input_tokens"]}


async def test_logprobs_come_with_the_text(client: ASGIConductor) -> None:
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    scores = (await plain(client, **fields))["output"][0]["content"][0]["logprobs"]
    assert bytes(byte for score in scores for byte in score["bytes"]).decode() == SENTENCE
    assert [len(score["top_logprobs"]) for score in scores] == [1] * len(scores)
    events = await streamed(client, **fields)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [score for delta in deltas for score in delta["logprobs"]] == scores
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == scores


async def test_a_conversation_too_long_is_refused_or_shortened(
    client: ASGIConductor, models: FakeModels
) -> None:
    items = [{"role": "system", "content": "Be brief."}]
    items += [{"role": "user", "content": f"{number}: " + "the user " * 10} for number in range(40)]
    error = await refused(client, input=items)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    await plain(client, input=items, truncation="auto")
    assert prompt(models).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n3")
    assert "39: the user" in prompt(models)
    shortened = len(models.model.engine.submitted[-1][0])
    assert models.model.info.max_context - 60 < shortened < models.model.info.max_context
    await refused(client, input="the user " * 500, truncation="auto")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": 5000}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"previous_response_id": "../../etc/passwd"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: ASGIConductor, fields: Json, param: str
) -> None:
    error = await refused(client, **fields)
    assert (error["param"] or "").removesuffix("[...]") == param, error
    assert error["type"] == "invalid_request_error"


async def test_nulls_and_what_adds_nothing_are_taken(client: ASGIConductor) -> None:
    fields = ["instructions", "store", "tools", "tool_choice", "text", "reasoning", "metadata", "include"]
    assert (await plain(client, **dict.fromkeys(fields)))["tool_choice"] == "auto"
    await plain(client, tools=[], tool_choice="auto", background=False, brand_new={"a": 1})
    await plain(client, include=["reasoning.encrypted_content"], text={"format": {"type": "text"}})


async def test_failures(client: ASGIConductor, models: FakeModels) -> None:
    engine = models.model.engine
    engine.error = Overloaded("The queue is full.", retry_after=1.0)
    result = await client.simulate_post("/v1/responses", json=BODY | {"stream": True})
    assert (result.status_code, result.json["error"]["code"]) == (429, "queue_full")
    engine.error, engine.error_after = EngineFailed("The engine died."), 3
    *_, last = await streamed(client)
    response = last["response"]
    assert (last["type"], response["status"]) == ("response.failed", "failed")
    assert response["error"] == {"code": "server_error", "message": "The engine died."}
    assert response["output"][0]["status"] == "incomplete"
    assert (await client.simulate_get(f"/v1/responses/{response['id']}")).json == response


async def test_how_tokens_are_drawn_may_be_said_as_in_chat(client: ASGIConductor, models: FakeModels) -> None:
    drawing = {"seed": 3, "top_k": 5, "frequency_penalty": 0.5, "min_tokens": 2, "logit_bias": {"7": 1}}
    assert (await client.post("/v1/responses", json=BODY | drawing)).status_code == 200
    [request] = models.get("org/tiny").engine.requests
    sampling = request.sampling
    assert (sampling.seed, sampling.top_k, sampling.frequency_penalty) == (3, 5, 0.5)
    assert sampling.logit_bias == {7: 1}
    assert request.min_tokens == 2
