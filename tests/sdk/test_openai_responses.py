"""The official openai-python client's responses, against real servers, one of them with two workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.serving import Server
from tests.tiny import SENTENCE, write_testing_bundle

ASK: dict[str, Any] = {"model": "tiny", "input": "hello", "temperature": 0}


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, and two keys."""
    folder: Path = tmp_path_factory.mktemp("bundles")
    keys = folder / "keys"
    keys.write_text("one\ntwo\n")
    flags = ("--workers", "2", "--api-key-file", str(keys))
    bundle = write_testing_bundle(folder, max_context=4096)
    with Server([bundle], flags, api_key="zero") as server:
        yield server


@pytest.fixture
def client(open_server: Server) -> Iterator[OpenAI]:
    with open_server.openai(max_retries=0) as client:
        yield client


def test_response(client: OpenAI) -> None:
    response = client.responses.create(instructions="Be brief.", metadata={"a": "b"}, **ASK)
    assert response.output_text == SENTENCE
    assert (response.status, response.metadata, response.model) == ("completed", {"a": "b"}, "tiny")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_stream(client: OpenAI) -> None:
    events = list(client.responses.create(stream=True, **ASK))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == SENTENCE
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == SENTENCE


def test_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(**ASK) as stream:
        assert stream.get_final_response().output_text == SENTENCE


def test_incomplete(client: OpenAI) -> None:
    response = client.responses.create(max_output_tokens=3, **ASK)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    *_, last = client.responses.create(max_output_tokens=3, stream=True, **ASK)
    assert last.type == "response.incomplete"


def test_logprobs(client: OpenAI) -> None:
    response = client.responses.create(include=["message.output_text.logprobs"], top_logprobs=2, **ASK)
    scores = response.output[0].content[0].logprobs
    assert b"".join(bytes(score.bytes) for score in scores).decode() == SENTENCE
    assert {len(score.top_logprobs) for score in scores} == {2}


def test_an_answer_is_input_again(client: OpenAI) -> None:
    first = client.responses.create(**ASK)
    items = [{"role": "user", "content": "hello"}, *first.output, {"role": "user", "content": "the user"}]
    again = client.responses.create(**{**ASK, "input": items})
    linked = client.responses.create(**{**ASK, "input": "the user"}, previous_response_id=first.id)
    assert again.usage.input_tokens == linked.usage.input_tokens
    assert again.output_text == linked.output_text == SENTENCE
    counted = client.responses.input_tokens.count(model="tiny", input=items)
    assert counted.input_tokens == again.usage.input_tokens


@pytest.fixture
def clients(shared_server: Server) -> Iterator[list[OpenAI]]:
    """Eight, with a connection each."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(shared_server.openai(max_retries=0)) for _ in range(8)]


def test_any_worker_finds_what_another_one_kept(clients: list[OpenAI]) -> None:
    first = clients[0].responses.create(**ASK)
    for number, client in enumerate(clients):
        assert client.responses.retrieve(first.id).output_text == SENTENCE
        first = client.responses.create(**ASK, previous_response_id=first.id)
        items = list(client.responses.input_items.list(first.id, limit=2))
        assert len(items) == 2 * number + 3
    clients[3].responses.delete(first.id)
    for client in clients:
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)


def test_keys_do_not_share(clients: list[OpenAI]) -> None:
    one, two = (
        client.with_options(api_key=key) for client, key in zip(clients, ("one", "two"), strict=False)
    )
    kept = one.responses.create(**ASK)
    with pytest.raises(openai.NotFoundError):
        two.responses.retrieve(kept.id)
    with pytest.raises(openai.BadRequestError):
        two.responses.create(**ASK, previous_response_id=kept.id)
    assert one.responses.retrieve(kept.id).id == kept.id
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        one.responses.cancel(kept.id)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"input": []}, openai.BadRequestError),
        ({"input": "hello " * 2000}, openai.BadRequestError),
        ({"background": True}, openai.BadRequestError),
        ({"model": "nothing"}, openai.NotFoundError),
    ],
)
def test_refusals(client: OpenAI, change: dict[str, Any], error: type[openai.APIStatusError]) -> None:
    with pytest.raises(error) as raised:
        client.responses.create(**{**ASK, **change})
    assert raised.value.request_id
    assert raised.value.body["message"]
