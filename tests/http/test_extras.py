"""What vLLM and llama-server add to completions, and newer fields of OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from falcon.testing import ASGIConductor

from basert.messages import TokenLogprob
from basert.resources.completion_writer import best
from basert.resources.responding import Answer
from basert.text import TextModel
from basert.text.streaming import Scored
from tests.http.fakes import FakeModels
from tests.tiny import SENTENCE, tiny_tokenizer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER], "temperature": 0},
    TEXT: {"prompt": "hello", "temperature": 0, "max_tokens": 100},
}
BOTH = pytest.mark.parametrize("path", [CHAT, TEXT])


async def plain(client: ASGIConductor, path: str, **fields: Any) -> dict[str, Any]:
    result = await client.simulate_post(path, json={"model": "org/tiny", **ASKED[path], **fields})
    assert result.status_code == 200, result.text
    return result.json


async def streamed(client: ASGIConductor, path: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "org/tiny", "stream": True, **ASKED[path], **fields}
    *events, done, _ = (await client.simulate_post(path, json=body)).text.split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(choice: dict[str, Any]) -> str:
    """Of a choice, or of a chunk's."""
    said = choice.get("message") or choice.get("delta") or choice
    return said.get("content", said.get("text", ""))


@BOTH
async def test_what_stopped_an_answer_is_told(client: ASGIConductor, models: FakeModels, path: str) -> None:
    token = models.model.text.encode(SENTENCE)[6]
    for fields, reason in (
        ({"stop": ["zzz", "wor"]}, "wor"),
        ({"stop_token_ids": [token]}, token),
        ({}, None),
        ({"max_tokens": 3}, None),
    ):
        choice = (await plain(client, path, **fields))["choices"][0]
        assert choice.get("stop_reason") == reason
        *others, last = [event["choices"][0] for event in await streamed(client, path, **fields)]
        assert last.get("stop_reason") == reason
        assert not any("stop_reason" in other for other in others)


@BOTH
async def test_a_stop_string_can_stay(client: ASGIConductor, path: str) -> None:
    fields = {"stop": ["wor"], "include_stop_str_in_output": True}
    choice = (await plain(client, path, **fields))["choices"][0]
    assert (text_of(choice), choice["finish_reason"]) == (" Grüße, wor", "stop")
    events = await streamed(client, path, **fields)
    assert "".join(text_of(event["choices"][0]) for event in events) == " Grüße, wor"


@BOTH
async def test_token_ids_of_prompt_and_answer(client: ASGIConductor, models: FakeModels, path: str) -> None:
    whole = await plain(client, path, return_token_ids=True, n=2)
    script = [*models.model.text.encode(SENTENCE), models.model.manifest.eos_token_ids[0]]
    assert [choice["token_ids"] for choice in whole["choices"]] == [script, script]
    prompt = models.model.engine.submitted[0][0]
    holder = whole if path == CHAT else whole["choices"][1]
    assert holder["prompt_token_ids"] == prompt
    for fields in ({}, {"stop": SENTENCE + "?"}):  # and where all text is held back
        events = await streamed(client, path, return_token_ids=True, **fields)
        choices = [event["choices"][0] for event in events]
        assert [token for choice in choices for token in choice.get("token_ids", [])] == script
        assert (events[0] if path == CHAT else choices[0])["prompt_token_ids"] == prompt
        assert json.dumps(events).count("prompt_token_ids") == 1


async def test_tokens_can_be_named_by_their_ids(client: ASGIConductor, models: FakeModels) -> None:
    names = [f"token_id:{token}" for token in models.model.text.encode(SENTENCE)]
    fields = {"return_tokens_as_token_ids": True, "max_tokens": len(names)}
    scores = (await plain(client, TEXT, logprobs=1, **fields))["choices"][0]["logprobs"]
    assert scores["tokens"] == names
    assert scores["top_logprobs"][0] == {names[0]: -0.25}
    content = (await plain(client, CHAT, logprobs=True, **fields))["choices"][0]["logprobs"]["content"]
    assert [score["token"] for score in content] == names
    assert bytes(byte for score in content for byte in score["bytes"]).decode() == SENTENCE


@BOTH
async def test_the_prompt_is_scored_as_vllm_does(
    client: ASGIConductor, models: FakeModels, path: str
) -> None:
    told = await plain(client, path, prompt_logprobs=2, max_tokens=1)
    scores = (told if path == CHAT else told["choices"][0])["prompt_logprobs"]
    prompt, text = models.model.engine.submitted[0][0], models.model.text
    assert scores[0] is None
    assert [next(iter(score)) for score in scores[1:]] == [str(token) for token in prompt[1:]]
    name = text.token_bytes(prompt[1]).decode()
    assert scores[1] == {
        str(prompt[1]): {"logprob": -0.25, "rank": 1, "decoded_token": name},
        "0": {"logprob": -9999.0, "rank": 2, "decoded_token": "<|endoftext|>"},
    }
    assert "prompt_logprobs" not in json.dumps(await plain(client, path, max_tokens=1))


async def test_the_end_of_a_prompt_that_is_too_long(client: ASGIConductor, models: FakeModels) -> None:
    ids = [10 + n % 200 for n in range(400)]
    for keep, kept in ((3, ids[-3:]), (-1, ids[-156:]), (500, None)):
        body = {"model": "alias", "prompt": ids, "truncate_prompt_tokens": keep, "max_tokens": 100}
        result = await client.simulate_post(TEXT, json=body)
        if kept is None:
            assert result.json["error"]["code"] == "context_length_exceeded"
        else:
            assert models.model.engine.submitted[-1][0] == kept
    answer = await plain(client, TEXT, prompt="jumphello", truncate_prompt_tokens=2, echo=True, max_tokens=1)
    assert answer["choices"][0]["text"] == "hello "
    await plain(client, CHAT, messages=[{"role": "user", "content": "a" * 4000}], truncate_prompt_tokens=-1)
    assert len(models.model.engine.submitted[-1][0]) == 255


@BOTH
async def test_usage_in_every_chunk(client: ASGIConductor, path: str) -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    *events, last = await streamed(client, path, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert events[-1]["usage"] == last["usage"]
    assert last["choices"] == []


async def test_the_last_message_goes_on(client: ASGIConductor, models: FakeModels) -> None:
    messages = [USER, {"role": "assistant", "content": "Well: "}]
    fields: dict[str, Any] = {"messages": messages, "continue_final_message": True}
    answer = await plain(client, CHAT, **fields)
    assert text_of(answer["choices"][0]) == SENTENCE
    prompt = models.model.text.decode(models.model.engine.submitted[0][0], skip_special=False)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell: "
    answer = await plain(client, CHAT, echo=True, **fields)
    assert text_of(answer["choices"][0]) == "Well: " + SENTENCE
    first, second, *_ = events = await streamed(client, CHAT, echo=True, **fields)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert second["choices"][0]["delta"] == {"content": "Well: "}
    assert "".join(text_of(event["choices"][0]) for event in events) == "Well: " + SENTENCE
    assert text_of((await plain(client, CHAT, echo=True))["choices"][0]) == SENTENCE  # the user spoke last


@BOTH
async def test_what_the_engine_has_to_know_reaches_it(
    client: ASGIConductor, models: FakeModels, path: str
) -> None:
    fields = {"allowed_token_ids": [5, 6], "bad_words": ["hello"], "priority": 3, "cache_salt": "mine"}
    await plain(client, path, **fields)
    request, text = models.model.engine.requests[0], models.model.text
    assert (request.allowed_ids, request.priority, request.cache_salt) == ([5, 6], 1, "mine")
    assert request.bad_words == [text.encode("hello"), text.encode(" hello")]
    await plain(client, path, priority=-3, repeat_penalty=1.5, n=2, cache_prompt=False)
    *_, first, second = models.model.engine.requests
    assert (first.priority, first.sampling.repetition_penalty) == (0, 1.5)
    assert first.cache_salt == second.cache_salt != ""


async def test_n_predict_is_max_tokens(client: ASGIConductor, models: FakeModels) -> None:
    for fields, most in (
        ({"n_predict": 3, "max_tokens": None}, 3),
        ({"n_predict": 3, "max_tokens": 5}, 5),
        ({"n_predict": -1, "max_tokens": None}, 254),
        ({"max_tokens": None}, 16),
    ):
        await plain(client, TEXT, **fields)
        assert models.model.engine.requests[-1].max_tokens == most


@BOTH
async def test_values_that_ask_for_nothing_are_taken(client: ASGIConductor, path: str) -> None:
    neutral = {
        "mirostat": 0,
        "typical_p": 1.0,
        "tfs_z": 1,
        "top_n_sigma": -1,
        "dynatemp_range": 0.0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0,
        "length_penalty": 1.0,
        "early_stopping": False,
        "use_beam_search": False,
        "samplers": [],
        "t_max_predict_ms": 0,
        "n_probs": 0,
        "cache_prompt": True,
        "spaces_between_special_tokens": True,
        "mirostat_tau": 5.0,
        "dry_base": 1.75,
        "mm_processor_kwargs": {"a": 1},
    }
    assert text_of((await plain(client, path, **neutral))["choices"][0]) == SENTENCE


async def test_openai_s_own_that_change_no_answer(client: ASGIConductor) -> None:
    fields = {
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
        "safety_identifier": "a",
        "prompt_cache_key": "b",
        "store": False,
        "service_tier": "auto",
    }
    answer = await plain(client, CHAT, **fields)
    assert (text_of(answer["choices"][0]), answer["service_tier"]) == (SENTENCE, "default")
    events = await streamed(client, CHAT, stream_options={"include_usage": True}, **fields)
    assert {event["service_tier"] for event in events} == {"default"}
    assert "service_tier" not in await plain(client, CHAT)


async def test_the_best_of_several_choices(client: ASGIConductor, models: FakeModels) -> None:
    answer = await plain(client, TEXT, prompt=["a", "hello"], n=1, best_of=3, seed=4)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in answer["choices"])
    assert sorted(one.sampling.seed for one in models.model.engine.requests) == [4, 4, 5, 5, 6, 6]
    script = len(models.model.text.encode(SENTENCE)) + 1
    assert answer["usage"]["completion_tokens"] == 6 * script
    assert answer["usage"]["prompt_tokens"] == len(models.model.text.encode("hello")) + 1
    assert len((await plain(client, TEXT, n=2, best_of=2))["choices"]) == 2
    assert len(await streamed(client, TEXT, best_of=1)) > 1


def test_the_likeliest_by_the_mean_of_their_tokens_come_first() -> None:
    answers = [Answer(scored=[Scored(TokenLogprob(1, one), 0) for one in scores]) for scores in (
        [-1.0, -1.0], [-0.5], [], [-0.4] * 9, [float("-inf"), -0.1]
    )]  # fmt: skip
    assert best(answers, 3) == [answers[3], answers[1], answers[0]]
    assert best(answers[:2], 2) == answers[:2]


async def test_a_suffix_where_the_tokenizer_knows_holes(client: ASGIConductor, models: FakeModels) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])
    text = models.model.text = TextModel(tokenizer)
    await plain(client, TEXT, prompt="hello", suffix=" world")
    prompt = models.model.engine.submitted[0][0]
    assert text.decode(prompt) == "<fim_prefix>hello<fim_suffix> world<fim_middle>"
