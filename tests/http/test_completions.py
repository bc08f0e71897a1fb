"""Text completions on the wire: prompts of all kinds, echo and scores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from falcon.testing import ASGIConductor

from tests.http.fakes import FakeModels
from tests.tiny import SENTENCE

BODY = {"model": "org/tiny", "prompt": "hello", "temperature": 0}


async def plain(client: ASGIConductor, **fields: Any) -> dict[str, Any]:
    result = await client.simulate_post("/v1/completions", json=BODY | fields)
    assert result.status_code == 200, result.text
    return result.json


async def streamed(client: ASGIConductor, **fields: Any) -> list[dict[str, Any]]:
    result = await client.simulate_post("/v1/completions", json=BODY | {"stream": True} | fields)
    *events, done, _ = result.text.split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]


async def test_a_plain_answer(client: ASGIConductor, models: FakeModels) -> None:
    answer = await plain(client, max_tokens=100)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": SENTENCE, "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"]["prompt_tokens"] == len(models.model.text.encode("hello"))


async def test_sixteen_tokens_unless_told_otherwise(client: ASGIConductor) -> None:
    assert (await plain(client))["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("he", [["he"]]),
        (["he", "llo"], [["he"], ["llo"]]),
        ([5, 6], [[5, 6]]),
        ([[5], [6, 7]], [[5], [6, 7]]),
    ],
)
async def test_prompts_of_every_kind_answered_in_order(
    client: ASGIConductor, models: FakeModels, prompt: object, ids: list[Any]
) -> None:
    answer = await plain(client, prompt=prompt, n=2, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(ids)))
    wanted = [models.model.text.encode(one[0]) if isinstance(one[0], str) else one for one in ids]
    assert [ids for ids, _ in models.model.engine.submitted] == [one for one in wanted for _ in range(2)]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, wanted))


@pytest.mark.parametrize("prompt", ["hello the world", [[40, 50, 60]]])
@pytest.mark.parametrize("max_tokens", [0, 1, 100])
async def test_echo_with_logprobs_scores_a_text(
    client: ASGIConductor, models: FakeModels, prompt: Any, max_tokens: int
) -> None:
    text = models.model.text
    ids = text.encode(prompt) if isinstance(prompt, str) else prompt[0]
    answer = await plain(client, prompt=prompt, echo=True, logprobs=1, max_tokens=max_tokens)
    choice = answer["choices"][0]
    assert choice["text"].startswith(text.decode(ids))
    scores = choice["logprobs"]
    assert scores["token_logprobs"][0] is None
    assert scores["top_logprobs"][0] is None
    assert scores["token_logprobs"][1 : len(ids)] == [-0.25] * (len(ids) - 1)
    generated = min(max_tokens, len(text.encode(SENTENCE)) + 1)
    assert {len(column) for column in scores.values()} == {len(ids) + generated}
    for token, offset in zip(scores["tokens"], scores["text_offset"], strict=True):
        assert token.startswith(("bytes:", "<|")) or choice["text"].startswith(token, offset)
    assert answer["usage"]["completion_tokens"] == generated


@pytest.mark.parametrize(
    "more",
    [{}, {"prompt": "<|im_start|>", "stop": [SENTENCE + "?"]}],  # at first, there is no text to send
)
async def test_a_stream_joins_to_the_plain_answer(client: ASGIConductor, more: dict[str, Any]) -> None:
    fields = {"echo": True, "logprobs": 2, "max_tokens": 100} | more
    whole = (await plain(client, **fields))["choices"][0]
    parts = await streamed(client, **fields)
    assert "".join(part["text"] for part in parts) == whole["text"]
    assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    for column, values in whole["logprobs"].items():
        assert [value for part in parts for value in part["logprobs"][column]] == values


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_several_given_texts_are_scored(
    client: ASGIConductor, models: FakeModels, max_tokens: int, stream: bool
) -> None:
    """As evaluation harnesses ask: token ids, the last choice's token is theirs to cut."""
    prompts = [[40, 50, 60], [5], models.model.text.encode("hello 🌍 <|im_end|>world")]
    fields = {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": max_tokens, "seed": 1234}
    if stream:
        choices = [
            [part for part in await streamed(client, **fields) if part["index"] == i] for i in range(3)
        ]
    else:
        choices = [[choice] for choice in (await plain(client, **fields))["choices"]]
    for prompt, parts in zip(prompts, choices, strict=True):
        scores = [score for part in parts for score in part["logprobs"]["token_logprobs"]]
        assert scores == [None] + [-0.25] * (len(prompt) - 1 + max_tokens)
        assert "".join(part["text"] for part in parts).startswith(models.model.text.decode(prompt))


async def test_offsets_count_special_tokens_that_are_written_out(client: ASGIConductor) -> None:
    prompt = "a<|im_start|>b 🌍"
    choice = (await plain(client, prompt=prompt, echo=True, logprobs=0, max_tokens=2))["choices"][0]
    assert choice["text"] == prompt + " G"
    scores = choice["logprobs"]
    for token, offset in zip(scores["tokens"], scores["text_offset"], strict=True):
        assert token.startswith("bytes:") or choice["text"].startswith(token, offset)


@pytest.mark.parametrize("stop", [None, "wor", SENTENCE + "?"])
async def test_every_choice_has_its_scores_also_where_text_is_held_back(
    client: ASGIConductor, stop: str | None
) -> None:
    fields = {"logprobs": 1, "n": 3, "max_tokens": 100, "stop": stop}
    whole = (await plain(client, **fields))["choices"]
    parts = await streamed(client, **fields)
    assert whole[0]["logprobs"] == whole[1]["logprobs"] == whole[2]["logprobs"]
    for choice in whole:
        told = [part["logprobs"] for part in parts if part["index"] == choice["index"]]
        for column, values in choice["logprobs"].items():
            assert [value for part in told for value in part[column]] == values
    scores = whole[0]["logprobs"]
    begun = [offset for offset in scores["text_offset"] if offset < len(whole[0]["text"])]
    ended = [name for name in scores["tokens"][len(begun) :] if stop != "wor"]
    assert len(begun) + len(ended) == len(scores["tokens"])  # none that begins behind the text, but its end
    assert ended == ([] if stop == "wor" else ["<|im_end|>"])


async def test_parts_of_characters_are_named_by_their_bytes(client: ASGIConductor) -> None:
    scores = (await plain(client, logprobs=0, max_tokens=100))["choices"][0]["logprobs"]
    assert "bytes:\\xf0" in scores["tokens"]
    assert scores["tokens"][-1] == "<|im_end|>"
