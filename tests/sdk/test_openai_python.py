"""The official openai-python client, unchanged, against a real server."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.sdk.conftest import magic_ids
from tests.serving import Server
from tests.tiny import SENTENCE

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0}
DICE: dict[str, Any] = {  # a draw, but for the words that crash the testing session
    "model": "dice",
    "messages": ASK["messages"],
    "temperature": 1,
    "max_tokens": 24,
    "logit_bias": {str(token): -100 for token in magic_ids()},
}
LONG: dict[str, Any] = {
    "model": "slow",
    "prompt": "hello",
    "max_tokens": 19_000,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture
def client(open_server: Server) -> Iterator[OpenAI]:
    with open_server.openai(max_retries=0) as client:
        yield client


@pytest.fixture
def busy(busy_server: Server) -> Iterator[OpenAI]:
    with busy_server.openai(max_retries=0) as client:
        yield client


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", **ASK)
    assert answer.choices[0].message.content == SENTENCE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint


def test_stream_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny", **ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    *body, last = chunks
    assert body[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in body) == SENTENCE
    assert [chunk.choices[0].finish_reason for chunk in body[-2:]] == [None, "stop"]
    assert {chunk.id for chunk in chunks} == {last.id}
    assert last.choices == []
    assert last.usage is not None
    whole = client.chat.completions.create(model="tiny", **ASK)
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model="tiny", **ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == SENTENCE


async def test_async_client(open_server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{open_server.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="tiny", **ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SENTENCE


def test_n(client: OpenAI) -> None:
    drawn = client.chat.completions.create(**DICE, seed=1, n=3)
    assert [choice.index for choice in drawn.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in drawn.choices}) == 3


def test_stop(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", **ASK, stop=["nowhere", "world"])
    assert answer.choices[0].message.content == SENTENCE.partition("world")[0]
    assert answer.choices[0].finish_reason == "stop"


def test_max_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", **ASK, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_seed(client: OpenAI) -> None:
    def draw(seed: int) -> str:
        return client.chat.completions.create(**DICE, seed=seed).choices[0].message.content

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_logprobs(client: OpenAI) -> None:
    choice = client.chat.completions.create(model="tiny", **ASK, logprobs=True, top_logprobs=2).choices[0]
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode().startswith(SENTENCE)
    for token in tokens:
        assert math.isclose(token.logprob, token.top_logprobs[0].logprob)
        assert len(token.top_logprobs) == 2


def test_models(client: OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny", "dice"}
    assert client.models.retrieve("tiny").object == "model"


def test_completions_with_several_prompts(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=["hello", "the user"], temperature=0, n=2, max_tokens=64
    )
    assert [(choice.index, choice.text) for choice in answer.choices] == [(i, SENTENCE) for i in range(4)]


def test_completion_logprobs_of_a_given_text(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="hello world", echo=True, logprobs=1, max_tokens=0
    )
    scores = answer.choices[0].logprobs
    assert answer.choices[0].text == "hello world"
    assert scores.token_logprobs[0] is None
    assert all(score <= 0 for score in scores.token_logprobs[1:])
    assert len(scores.tokens) == len(scores.text_offset) == len(scores.token_logprobs)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"temperature": 9}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "hello " * 2000}]}, openai.BadRequestError),
        ({"model": "nothing"}, openai.NotFoundError),
    ],
)
def test_refusals(client: OpenAI, change: dict[str, Any], error: type[openai.APIStatusError]) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": "tiny", **ASK, **change})
    assert raised.value.request_id
    assert raised.value.body["message"]


def test_a_wrong_key_is_an_authentication_error(busy_server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{busy_server.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_a_full_queue_is_a_rate_limit_error_and_an_abort_frees_the_slot(busy: OpenAI) -> None:
    with busy.completions.create(**LONG, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as raised:
            busy.completions.create(**LONG)
        assert float(raised.value.response.headers["retry-after"]) > 0
    answer = busy.with_options(max_retries=5).completions.create(**{**LONG, "max_tokens": 1})
    assert answer.usage.completion_tokens == 1
    metrics = busy.with_options(base_url=str(busy.base_url).removesuffix("/v1/")).get("/metrics", cast_to=str)
    assert 'basert_requests_total{key="unnamed",model="slow",outcome="cancelled"}' in metrics


def test_no_server_is_a_connection_error(open_server: Server) -> None:
    with (
        OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


def test_a_lost_engine_is_an_error_in_the_stream(tmp_path: Path, slow_bundle: Path) -> None:
    with Server([slow_bundle]) as server, server.openai(max_retries=0) as client:
        stream = iter(client.completions.create(**LONG, stream=True))
        next(stream)
        engine = next(process for process in server.processes() if "engines" in process.cmdline())
        engine.send_signal(signal.SIGKILL)
        with pytest.raises(openai.APIError):
            list(stream)
        assert client.with_options(max_retries=10).completions.create(**{**LONG, "max_tokens": 1}).choices
