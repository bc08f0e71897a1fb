"""Samplers against straightforward references in float64 with full sorts."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from basert.messages import Sampling, Submit
from engines.batch import Batch, Row
from engines.drawing import NEVER, Weights, draw, filtered, logprob, only, pick, scratch, uniform_at
from engines.runner import Output
from engines.sampling import Sampler
from engines.sequence import Sequence
from engines.stats import Counters

VOCAB = 1000


def logits_like(kind: str, seed: int, size: int = VOCAB) -> NDArray[np.float32]:
    """Logits of a shape that models produce: "peaked" on a few tokens, "flat", or "tied" in steps of 1/2."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(size) * 2
    if kind == "peaked":
        logits[rng.integers(0, size, 20)] += 12
    if kind == "tied":
        logits = np.round(logits * 2) / 2
    return logits.astype(np.float32)


def reference_probabilities(logits: NDArray[np.float32], sampling: Sampling) -> NDArray[np.float64]:
    """Probabilities after temperature, top-k, top-p and min-p; what ties with the last kept token is kept."""
    scaled = logits.astype(np.float64) / sampling.temperature
    p = np.exp(scaled - scaled.max())
    if 0 < sampling.top_k < len(p):
        p[p < np.sort(p)[-sampling.top_k]] = 0
    p /= p.sum()
    if sampling.top_p < 1:
        ordered = np.sort(p)[::-1]
        before = np.concatenate([[0], np.cumsum(ordered)[:-1]])
        p[p < ordered[before < sampling.top_p][-1]] = 0
    p[p < sampling.min_p * p.max()] = 0
    normal: NDArray[np.float64] = p / p.sum()
    return normal


FILTERS = [
    Sampling(top_k=1),
    Sampling(top_k=40),
    Sampling(top_k=VOCAB + 5),
    Sampling(top_p=0.9),
    Sampling(top_p=0.1),
    Sampling(top_p=0.999),
    Sampling(min_p=0.05),
    Sampling(min_p=1.0),
    Sampling(temperature=0.3, top_k=20, top_p=0.8, min_p=0.02),
    Sampling(temperature=1.9, top_p=0.95, min_p=0.001),
    Sampling(temperature=0.01, top_k=5, top_p=0.5),
]


@pytest.mark.parametrize("kind", ["peaked", "flat", "tied"])
@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_filters_keep_what_the_reference_keeps(kind: str, sampling: Sampling) -> None:
    for seed in range(10):
        logits = logits_like(kind, seed)
        expected = reference_probabilities(logits, sampling)
        weights = Weights(logits, sampling.temperature, None, scratch(VOCAB))
        ids, kept = filtered(weights, VOCAB, sampling)
        assert ids.tolist() == np.flatnonzero(expected).tolist()
        assert kept / kept.sum() == pytest.approx(expected[ids], rel=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.8), *FILTERS], ids=str)
def test_draws_invert_the_cumulative_distribution(sampling: Sampling) -> None:
    logits = logits_like("peaked", 3, 1300)
    mass = np.cumsum(reference_probabilities(logits, sampling))
    for position in range(200):
        token = draw(logits, sampling, position)
        uniform = uniform_at(sampling.seed, position)
        assert (mass[token - 1] if token else 0) - 1e-5 <= uniform <= mass[token] + 1e-5


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    counts = np.bincount([draw(logits, Sampling(seed=9), i) for i in range(8000)], minlength=4)
    assert counts / 8000 == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.015)


def test_a_draw_depends_on_seed_and_position_only() -> None:
    seeds = [0, 1, 2**63, 2**64 - 1]
    numbers = {(seed, position): uniform_at(seed, position) for seed in seeds for position in range(50)}
    assert len(set(numbers.values())) == len(numbers)
    assert all(0 <= number < 1 for number in numbers.values())
    assert numbers[1, 7] == uniform_at(1, 7)


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.full(2000, -np.inf, np.float32)
    logits[[3, 700, 1999]] = 1.0
    assert {draw(logits, Sampling(), i) for i in range(100)} == {3, 700, 1999}


def test_extreme_temperatures_are_greedy_and_finite() -> None:
    logits = logits_like("peaked", 1)
    assert draw(logits, Sampling(temperature=1e-300), 5) == int(logits.argmax())
    assert 0 <= draw(logits, Sampling(temperature=1e6, top_p=0.5), 5) < VOCAB


@pytest.mark.parametrize("top", [0, 1, 5, VOCAB + 1])
def test_logprobs_are_of_the_whole_distribution(top: int) -> None:
    logits = logits_like("tied", 4)
    exact = logits.astype(np.float64)
    exact -= math.log(np.exp(exact).sum())
    entry = logprob(logits, 17, top)
    assert entry.id == 17
    assert entry.logprob == pytest.approx(exact[17], abs=1e-5)
    order = np.argsort(-exact, kind="stable")[:top]  # ties: the lower id first
    assert [token for token, _ in entry.top] == order.tolist()
    assert [value for _, value in entry.top] == pytest.approx(exact[order].tolist(), abs=1e-5)
    assert entry.rank == np.count_nonzero(exact > exact[17]) + 1


def sample(sequence: Sequence, logits: NDArray[np.float32]) -> int:
    row = Row(sequence.computed, sequence.tokens[sequence.computed :], 1, sequence, draws=True)
    output = Output(np.array([int(logits.argmax())]), logits[np.newaxis])
    [drawn] = SAMPLERS[logits.size].sample(Batch(0, 1, [row], logits=True), output)
    return drawn.tokens[0]


# By vocabulary size, as engines have them.
SAMPLERS: defaultdict[int, Sampler] = defaultdict(lambda: Sampler(Counters()))


def sequence_of(prompt: list[int], answer: list[int], submit: Submit) -> Sequence:
    tokens = prompt + answer
    eos = frozenset({7, *submit.stop_ids})
    return Sequence(1, submit, eos, len(tokens) + 10, 0.0, tokens, computed=len(tokens) - 1)


def penalised(
    logits: NDArray[np.float32], prompt: list[int], answer: list[int], s: Sampling
) -> NDArray[np.float64]:
    """The definition, token by token."""
    out = logits.astype(np.float64)
    for token in set(prompt + answer):
        out[token] = (
            out[token] / s.repetition_penalty if out[token] > 0 else out[token] * s.repetition_penalty
        )
    for token in set(answer):
        out[token] -= s.frequency_penalty * answer.count(token) + s.presence_penalty
    for token, bias in s.logit_bias.items():
        out[token] += bias
    return out


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0, repetition_penalty=1.3),
        Sampling(temperature=0, repetition_penalty=0.7),
        Sampling(temperature=0, frequency_penalty=0.9),
        Sampling(temperature=0, presence_penalty=-1.5),
        Sampling(temperature=0, logit_bias={4: 3.0, 9: -100.0}),
        Sampling(
            temperature=0,
            repetition_penalty=1.1,
            frequency_penalty=0.4,
            presence_penalty=0.8,
            logit_bias={2: 1.0},
        ),
    ],
    ids=str,
)
def test_penalties_are_applied_as_defined_while_the_answer_grows(sampling: Sampling) -> None:
    rng = np.random.default_rng(11)
    prompt: list[int] = rng.integers(0, 12, 9).tolist()
    answer: list[int] = []
    sequence = sequence_of(prompt, [], Submit(1, prompt, 40, sampling))
    for _ in range(40):
        logits = (rng.standard_normal(12) * 1.5).astype(np.float32)
        token = sample(sequence, logits)
        assert token == int(penalised(logits, prompt, answer, sampling).argmax())
        answer.append(token)
        sequence.tokens.append(token)


def test_no_end_may_be_drawn_before_min_tokens() -> None:
    logits = logits_like("flat", 2)
    logits[[7, 8]] = 50
    for temperature in (0.0, 1.0):
        submit = Submit(1, [1], 9, Sampling(temperature=temperature), stop_ids=[8], min_tokens=2)
        assert sample(sequence_of([1], [5], submit), logits) not in (7, 8)
        assert sample(sequence_of([1], [5, 6], submit), logits) in (7, 8)


def test_only_what_is_allowed_is_drawn() -> None:
    logits = logits_like("peaked", 3)
    for temperature in (0.0, 1.0, 2.0):
        sampling = Sampling(temperature=temperature, repetition_penalty=1.2)
        submit = Submit(1, [1], 90, sampling, allowed_ids=[3, 40, 7])
        sequence = sequence_of([1], [], submit)
        for _ in range(40):
            sequence.tokens.append(sample(sequence, logits))
        assert set(sequence.tokens[1:]) <= {3, 40, 7}


def test_bad_words_never_come_whole() -> None:
    logits = np.array([0, 3, 2, 1, -9], np.float32)
    submit = Submit(1, [1, 2], 9, Sampling(temperature=0), bad_words=[[1, 1], [2], [1, 3, 1]])
    sequence = sequence_of([1, 2], [], submit)
    for _ in range(5):
        sequence.tokens.append(sample(sequence, logits))
    assert sequence.tokens == [1, 2, 1, 3, 3, 1, 3]  # 1 1 is forbidden, 2 too, and 1 3 1


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 1.0])
def test_a_request_that_forbids_everything_still_draws_what_it_allows(temperature: float) -> None:
    submit = Submit(
        1, [1], 9, Sampling(temperature=temperature), min_tokens=5, allowed_ids=[7, 9], bad_words=[[9]]
    )
    assert sample(sequence_of([1], [], submit), logits_like("flat", 5)) in (7, 9)


@pytest.mark.parametrize("temperature", [1e-9, 1.0, 2.0])
def test_what_is_not_allowed_is_drawn_where_nothing_else_is_left(temperature: float) -> None:
    """Not an error: that would end every request of the batch."""
    logits = only(logits_like("flat", 5), np.array([7, 9]))
    logits[[7, 9]] = NEVER
    assert draw(logits, Sampling(temperature=temperature), 1) in (7, 9)
    logits[np.arange(VOCAB) != 30] = -np.inf
    assert draw(logits, Sampling(temperature=temperature), 1) == 30


def test_logprobs_ignore_the_filters() -> None:
    logits = logits_like("peaked", 6)
    submit = Submit(1, [1], 9, Sampling(temperature=0.1, top_k=1, logit_bias={3: 90.0}), logprobs=2)
    sequence = sequence_of([1], [], submit)
    row = Row(0, [1], 1, sequence, draws=True)
    [drawn] = Sampler(Counters()).sample(
        Batch(0, 1, [row], logits=True), Output(np.zeros(1, np.int64), logits[np.newaxis])
    )
    assert drawn.tokens == (3,)
    assert drawn.logprobs == (logprob(logits, 3, 2),)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(broken: float) -> None:
    logits = logits_like("flat", 1)
    logits[5] = broken
    with pytest.raises(FloatingPointError):
        draw(logits, Sampling(top_p=0.9), 1)


def test_the_last_token_is_the_furthest_a_draw_goes() -> None:
    for size in (5, 512, 513, 1024):
        weights = np.full(size, 0.1, np.float32)
        assert pick(weights, 1 - 2.0**-53)[0] == size - 1
        assert pick(weights, 0.0) == (0, 0.0)
