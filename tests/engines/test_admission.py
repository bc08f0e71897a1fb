"""What the engine lets in: a queue with an end, a context with an end, and requests that can be run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from basert.messages import Failed, Sampling, Submit
from engines.sessions.testing import TestingSession
from tests.engines.harness import GREEDY, PEER, SteppedEngine
from tests.engines.hashed import CONTEXT, SLOTS, expected


def test_a_queue_that_is_full_refuses(bundle: Path) -> None:
    engine = SteppedEngine(bundle, max_queue=2)
    numbers = [engine.ask([10, 11, 12], 3) for _ in range(SLOTS + 3)]
    assert [engine.ending(number) for number in numbers] == [""] * (SLOTS + 2) + ["queue_full"]
    engine.finish()
    assert Counter(engine.ending(number) for number in numbers)["queue_full"] == 1


def test_the_context_s_end_is_reached_and_not_passed(bundle: Path, model: TestingSession) -> None:
    engine = SteppedEngine(bundle)
    for length in (CONTEXT - 1, CONTEXT - 9, CONTEXT - 33):
        prompt = [11 + i % 7 for i in range(length)]
        number = engine.ask(prompt, 10_000, ignore_eos=True)
        engine.finish()
        answer, _ = expected(model, Submit(1, prompt, 10_000, GREEDY, ignore_eos=True), eos=2)
        assert engine.tokens(number) == answer
        assert len(answer) == CONTEXT - length
        assert engine.ending(number) == "length"


def test_a_prompt_that_leaves_no_room_names_both_numbers(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    failure = engine.failure(engine.ask([10] * CONTEXT, 1))
    assert failure.code == "context_length_exceeded"
    assert f"{CONTEXT} tokens" in failure.message
    assert f"prompt has {CONTEXT}" in failure.message


@pytest.mark.parametrize(
    ("prompt", "more", "says"),
    [
        ([], {}, "empty"),
        ([9999], {}, "vocabulary"),
        ([-1], {}, "vocabulary"),
        ([10], {"stop_ids": [9999]}, "stop_token_ids"),
        ([10], {"sampling": Sampling(logit_bias={-3: 1.0})}, "logit_bias"),
        ([10], {"sampling": Sampling(temperature=float("nan"))}, "at most 1000000"),
        ([10], {"sampling": Sampling(temperature=-1.0)}, "negative"),
        ([10], {"sampling": Sampling(repetition_penalty=0.0)}, "repetition_penalty"),
        ([10], {"sampling": Sampling(logit_bias={3: 1e30})}, "at most 1000000"),
        ([10], {"stop_ids": [5] * 257}, "256 stop_token_ids"),
        ([10], {"max_tokens": 0}, "max_tokens"),
        ([10], {"allowed_ids": [5, 9999]}, "allowed_token_ids"),
        ([10], {"bad_words": [[5], [5, -1]]}, "bad_words"),
        ([10], {"bad_words": [[]]}, "bad_words"),
        ([10], {"bad_words": [[5]] * 513}, "512 bad_words"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    bundle: Path, prompt: list[int], more: dict[str, object], says: str
) -> None:
    engine = SteppedEngine(bundle)
    failure = engine.failure(engine.ask(prompt, **{"max_tokens": 1} | more))  # type: ignore[arg-type]
    assert failure.code == "invalid"
    assert says in failure.message
    assert failure.message.endswith(".")
    assert not engine.engine.busy


def test_an_id_that_is_in_use_is_refused_and_its_first_owner_goes_on(bundle: Path) -> None:
    engine = SteppedEngine(bundle)
    submit = Submit(7, [10, 11], 2, GREEDY, ignore_eos=True)
    engine.engine.receive(PEER, submit)
    engine.engine.receive(PEER, submit)
    engine.finish()
    [failed, *tokens] = engine.replies[PEER, 7]
    assert isinstance(failed, Failed)
    assert failed.code == "invalid"
    assert len(tokens) == 2
