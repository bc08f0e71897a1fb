"""Log-probabilities on the wire are those of transformers: a real model in fp32, through a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from basert import text
from basert.text import TextModel
from export import sources
from export.prepare import prepare
from export.reference import Reference
from tests.serving import Server

TEXTS = [
    "The ferry leaves the harbour at seven and comes back when the tide allows it.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "Grüße, 世界 🌍! — naïve café",
    "a" * 300,
]
CLOSE = 1e-3


@pytest.fixture(scope="module")
def model(smollm2_fp32: Path) -> TextModel:
    return text.load(smollm2_fp32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    checkpoint = tmp_path_factory.mktemp("smollm2")
    prepare(sources.fetch("smollm2").path, checkpoint)
    return Reference(checkpoint, threads=1)


@pytest.fixture(scope="module")
def client(smollm2_fp32: Path) -> Iterator[httpx.Client]:
    with Server([smollm2_fp32]) as server, httpx.Client(base_url=server.url, timeout=120) as http:
        yield http


def completed(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/completions", json={"model": "smollm2-fp32", **fields})
    assert answer.status_code == 200, answer.text
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return choices


def true_scores(reference: Reference, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [len(ids) - 1, vocab] of what follows each token but the last."""
    return torch.log_softmax(reference.logits(ids)[:-1].double(), -1)


def told_of(scores: torch.Tensor, ids: list[int]) -> list[float]:
    return [float(row[token]) for row, token in zip(scores, ids[1:], strict=True)]


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("as_ids", [False, True])
def test_given_texts_are_scored_as_transformers_scores_them(
    client: httpx.Client, model: TextModel, reference: Reference, max_tokens: int, as_ids: bool
) -> None:
    prompts = [model.encode(one) for one in TEXTS]
    asked = {"echo": True, "logprobs": 5, "max_tokens": max_tokens, "temperature": 0}
    choices = completed(client, prompt=prompts if as_ids else TEXTS, **asked)
    for choice, ids, given in zip(choices, prompts, TEXTS, strict=True):
        scores, expected = choice["logprobs"], true_scores(reference, ids)
        assert choice["text"].startswith(given)
        assert scores["token_logprobs"][0] is None
        assert len(scores["tokens"]) == len(ids) + max_tokens
        assert scores["token_logprobs"][1 : len(ids)] == pytest.approx(told_of(expected, ids), abs=CLOSE)
        best = [max(top.values()) for top in scores["top_logprobs"][1 : len(ids)]]
        assert best == pytest.approx(expected.max(-1).values.tolist(), abs=CLOSE)


@pytest.mark.parametrize(
    ("context", "continuation"),
    [("The capital of France is", " Paris"), ("The capital of France is", " Berlin, as all know")],
)
def test_a_continuation_is_judged_as_an_evaluation_harness_judges_it(
    client: httpx.Client, model: TextModel, reference: Reference, context: str, continuation: str
) -> None:
    before = model.encode(context)
    ids = before + model.encode(continuation)
    asked = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
    [choice] = completed(client, prompt=[ids], **asked)
    logprobs = choice["logprobs"]["token_logprobs"][len(before) : -1]
    tops = choice["logprobs"]["top_logprobs"][len(before) : -1]
    is_greedy = all(one == max(top.values()) for one, top in zip(logprobs, tops, strict=True))
    expected = true_scores(reference, ids)[len(before) - 1 :]
    assert sum(logprobs) == pytest.approx(sum(told_of(expected, ids[len(before) - 1 :])), abs=CLOSE)
    assert is_greedy == (expected.argmax(-1).tolist() == ids[len(before) :])


def test_prompt_logprobs_have_the_ranks_of_the_whole_vocabulary(
    client: httpx.Client, model: TextModel, reference: Reference
) -> None:
    ids = model.encode(TEXTS[0])
    [choice] = completed(client, prompt=TEXTS[0], prompt_logprobs=2, max_tokens=1)
    first, *others = choice["prompt_logprobs"]
    assert first is None
    for told, row, token in zip(others, true_scores(reference, ids), ids[1:], strict=True):
        mine = told[str(token)]
        assert mine["logprob"] == pytest.approx(float(row[token]), abs=CLOSE)
        assert abs(mine["rank"] - int((row > row[token]).sum()) - 1) <= 1 + mine["rank"] // 100
        assert len(told) == (2 if mine["rank"] <= 2 else 3)


@pytest.mark.parametrize("stop", [None, "."])
def test_what_is_drawn_has_its_true_log_probability(
    client: httpx.Client, model: TextModel, reference: Reference, stop: str | None
) -> None:
    asked = {"logprobs": 0, "max_tokens": 20, "n": 3, "temperature": 1.5, "seed": 5, "stop": stop}
    ids = model.encode("Once upon a time")
    for choice in completed(client, prompt=[ids], return_token_ids=True, **asked):
        history = ids + choice["token_ids"]
        expected = told_of(true_scores(reference, history), history)[len(ids) - 1 :]
        scores = choice["logprobs"]["token_logprobs"]
        assert scores == pytest.approx(expected[: len(scores)], abs=CLOSE)
        assert len(scores) == len(expected) or stop
