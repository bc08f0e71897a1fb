"""Speculation changes no answer: what a lone sequence guesses right is what it would have said anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from basert.manifest import TOKENIZER
from basert.messages import Sampling, Submit, TokenLogprob
from tests.engines.harness import GREEDY, SteppedEngine
from tests.tiny import write_testing_bundle

SAMPLED = Sampling(temperature=0.8, top_p=0.95, seed=5, repetition_penalty=1.05, presence_penalty=0.1)


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says its sentence again and again."""
    return write_testing_bundle(tmp_path_factory.mktemp("looping"), max_context=200)


def both(bundle: Path, **config: Any) -> tuple[SteppedEngine, SteppedEngine]:
    """With speculation, and without."""
    return SteppedEngine(bundle, **config), SteppedEngine(bundle, speculation=False, **config)


def said(engine: SteppedEngine, prompt: list[int], tokens: int, **how: Any) -> tuple[Any, ...]:
    number = engine.ask(prompt, tokens, **how)
    engine.finish()
    return engine.tokens(number), engine.ending(number), engine.logprobs(number)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.7, seed=3), SAMPLED])
@pytest.mark.parametrize("tokens", [1, 2, 3, 50, 400])
def test_a_loop_is_said_the_same_in_fewer_steps(looping: Path, sampling: Sampling, tokens: int) -> None:
    guessing, plain = both(looping)
    for more in ({}, {"logprobs": 2, "min_tokens": 5}, {"stop_ids": [40], "min_tokens": 30}):
        how = {"sampling": sampling, "ignore_eos": True, **more}
        assert said(guessing, [10, 11, 12], tokens, **how) == said(plain, [10, 11, 12], tokens, **how)
    with_drafts, without = guessing.stats(), plain.stats()
    assert with_drafts.generated_tokens == without.generated_tokens
    assert without.drafted_tokens == 0
    assert with_drafts.decode_steps == without.decode_steps - with_drafts.accepted_tokens
    if tokens == 400 and sampling is not SAMPLED:
        assert with_drafts.decode_steps < 0.5 * without.decode_steps


def test_each_token_comes_in_a_message_of_its_own(looping: Path) -> None:
    engine = SteppedEngine(looping)
    number = engine.ask([10, 11, 12], 60, ignore_eos=True)
    engine.finish()
    replies = engine.replies[1, number]
    assert [len(reply.tokens) for reply in replies] == [1] * 60  # type: ignore[attr-defined]
    assert [bool(reply.finish) for reply in replies] == [False] * 59 + [True]  # type: ignore[attr-defined]


def test_it_ends_with_the_end_of_sequence(looping: Path) -> None:
    guessing, plain = both(looping)
    for length in range(3, 12):
        prompt = ([10, 11, 12] * 5)[:length]
        assert said(guessing, prompt, 100) == said(plain, prompt, 100)


def test_an_end_that_was_guessed_ends_it_in_the_middle_of_a_draft(looping: Path) -> None:
    guessing, plain = both(looping)
    first = said(plain, [10, 11, 12], 100)[0]
    for begun in range(1, len(first)):
        prompt = [*first, *first, *first[:begun]]
        assert said(guessing, prompt, 100) == said(plain, prompt, 100) == (first[begun:], "stop", [])
    assert guessing.stats().accepted_tokens > 10


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 60), st.integers(0, 9), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_comes_and_goes_beside_it(looping: Path, asked: list[tuple[int, int, int, bool]]) -> None:
    answers = []
    for engine in both(looping, slots=3, max_queue=20):
        numbers = []
        for length, tokens, steps, leaves in asked:
            prompt = np.random.default_rng(length).integers(3, 40, length).tolist()
            numbers.append(engine.ask(prompt, tokens, ignore_eos=True))
            other = engine.ask(prompt[::-1], tokens, Sampling(seed=length), ignore_eos=True)
            engine.step(steps)
            if leaves:
                engine.cancel(other)
        engine.finish()
        answers.append([(engine.tokens(number), engine.ending(number)) for number in numbers])
    assert answers[0] == answers[1]


def test_a_draft_never_runs_over_the_context_s_end(looping: Path) -> None:
    guessing, plain = both(looping, max_context=41)
    answer = said(guessing, [10, 11, 12], 500, ignore_eos=True)
    assert answer == said(plain, [10, 11, 12], 500, ignore_eos=True)
    assert len(answer[0]) == 38
    assert guessing.stats().accepted_tokens > 5


TEXTS = [
    "Write a poem about the sea with a refrain.",
    "Count from one to thirty.",
    "Repeat this three times: the quick brown fox jumps over the lazy dog.",
]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.6, top_p=0.9, seed=1)])
def test_smollm2_says_the_same(smollm2_w8a8: Path, sampling: Sampling) -> None:
    guessing, plain = both(smollm2_w8a8, slots=2, max_context=512)
    tokenizer = Tokenizer.from_file(str(smollm2_w8a8 / TOKENIZER))
    for text in TEXTS:
        chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        prompt = tokenizer.encode(chat, add_special_tokens=False).ids
        one, other = (
            said(engine, prompt, 120, sampling=sampling, ignore_eos=True, logprobs=1)
            for engine in (guessing, plain)
        )
        assert one[:2] == other[:2]
        assert _numbers(one[2]) == _numbers(other[2])  # to the bit
    assert guessing.stats().accepted_tokens > 20


def _numbers(logprobs: list[TokenLogprob]) -> list[tuple[int, float]]:
    return [(entry.id, entry.logprob) for entry in logprobs]


def test_a_request_of_one_token_guesses_nothing(looping: Path) -> None:
    engine = SteppedEngine(looping)
    engine.engine.receive(1, Submit(7, [10, 11, 10, 11], 1, GREEDY))
    engine.finish()
    assert engine.stats().drafted_tokens == 0
