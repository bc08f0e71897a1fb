"""The official anthropic-python client, unchanged, against a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.sdk.conftest import KEY
from tests.serving import Server
from tests.tiny import SENTENCE

ASK: dict[str, Any] = {"max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


ClientOf = Callable[..., Anthropic]


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Clients of a server with a key, closed in the end."""
    with contextlib.ExitStack() as clients:

        def client(server: Server, key: str = "none") -> Anthropic:
            return clients.enter_context(Anthropic(base_url=server.url, api_key=key, max_retries=0))

        yield client


@pytest.fixture
def client(open_server: Server, client_of: ClientOf) -> Anthropic:
    return client_of(open_server)


def test_message(client: Anthropic) -> None:
    message = client.messages.create(model="tiny", system="Be brief.", **ASK)
    (block,) = message.content
    assert (block.type, block.text) == ("text", SENTENCE)
    assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "end_turn", None)
    assert message._request_id


def test_conversation(client: Anthropic) -> None:
    first = client.messages.create(model="tiny", **ASK)
    messages = [*ASK["messages"], first.to_param(), {"role": "user", "content": "the user"}]
    second = client.messages.create(model="tiny", max_tokens=50, messages=messages)
    assert second.content[0].text == SENTENCE
    assert second.usage.input_tokens + second.usage.cache_read_input_tokens > first.usage.input_tokens


def test_stream(client: Anthropic) -> None:
    events = list(client.messages.create(model="tiny", stream=True, **ASK))
    assert events[0].type == "message_start"
    assert events[-1].type == "message_stop"
    texts = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "".join(texts) == SENTENCE


def test_stream_helper(client: Anthropic) -> None:
    with client.messages.stream(model="tiny", stop_sequences=["nowhere", "world"], **ASK) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text == SENTENCE.partition("world")[0]
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "world")
    assert message.usage.output_tokens > 1


async def test_async_client(open_server: Server) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=open_server.url, api_key="none") as client,
        client.messages.stream(model="tiny", **ASK) as stream,
    ):
        assert "".join([text async for text in stream.text_stream]) == SENTENCE


def test_max_tokens(client: Anthropic) -> None:
    message = client.messages.create(model="tiny", **{**ASK, "max_tokens": 3})
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_count_tokens(client: Anthropic) -> None:
    system = [{"type": "text", "text": "the system"}]
    counted = client.messages.count_tokens(model="tiny", system=system, messages=ASK["messages"])
    usage = client.messages.create(model="tiny", system=system, **ASK).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_tokens": 0}, anthropic.BadRequestError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": "hello " * 2000}]}, anthropic.BadRequestError),
        ({"model": "nothing"}, anthropic.NotFoundError),
    ],
)
def test_refusals(client: Anthropic, change: dict[str, Any], error: type[anthropic.APIStatusError]) -> None:
    with pytest.raises(error) as raised:
        client.messages.create(**{"model": "tiny", **ASK, **change})
    assert raised.value.request_id
    assert raised.value.body["error"]["message"]


def test_keys(busy_server: Server, client_of: ClientOf) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        client_of(busy_server, "wrong").messages.create(model="slow", **ASK)
    message = client_of(busy_server, KEY).messages.create(model="slow", **{**ASK, "max_tokens": 1})
    assert message.usage.output_tokens == 1


def test_a_full_queue_is_a_rate_limit_error(busy_server: Server, client_of: ClientOf) -> None:
    client = client_of(busy_server, KEY)
    ask = {"model": "slow", "prompt": "hello", "max_tokens": 19_000, "extra_body": {"ignore_eos": True}}
    with (
        busy_server.openai(max_retries=0) as other,
        other.completions.create(stream=True, **ask) as stream,
    ):
        next(iter(stream))
        with pytest.raises(anthropic.RateLimitError):
            client.messages.create(model="slow", **ASK)
    assert client.with_options(max_retries=5).messages.create(model="slow", **{**ASK, "max_tokens": 1})
