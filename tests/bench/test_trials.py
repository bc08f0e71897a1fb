"""A trial gives no number for something else than it asked for."""

from __future__ import annotations

import pytest

from basert.bench.load import Outcome
from basert.bench.peers.texts import Texts
from basert.bench.peers.trials import TRIALS, Load, check, gaps_of
from basert.client import RequestFailed


def outcome(tokens: int = 5, prompt_tokens: int = 9, error: str | None = None) -> Outcome:
    return Outcome(sent=0.0, arrivals=[1.0, 2.0], tokens=tokens, prompt_tokens=prompt_tokens, error=error)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (outcome(tokens=4), "answered 4 tokens where 5 were asked for"),
        (outcome(prompt_tokens=8), "read 8 tokens of a prompt of 9"),
        (outcome(error="refused."), "refused"),
        (Outcome(sent=0.0), "no text"),
    ],
)
def test_less_than_was_asked_is_a_failure(wrong: Outcome, why: str) -> None:
    check([outcome()], 9, 5)
    with pytest.raises(RequestFailed, match=why):
        check([outcome(), wrong], 9, 5)


def test_all_workloads_fit_what_the_servers_are_set_up_for() -> None:
    from basert.cli.bench_peers import CONTEXT, STREAMS

    for trial in TRIALS.values():
        if isinstance(trial, Load):
            assert trial.streams <= STREAMS
            assert trial.prompt_tokens + trial.output_tokens <= CONTEXT


def test_repeating_text_repeats(texts: Texts) -> None:
    for prompt in texts.repeating:
        third = len(prompt) // 3
        assert prompt[:third] == prompt[third : 2 * third]
    assert all(texts.chat)


def test_chunks_that_come_together_are_one() -> None:
    one = Outcome(sent=0.0, arrivals=[1.0, 1.0002, 1.0004, 1.5, 1.5001, 3.0])
    assert [*gaps_of(one)] == [(0.5, 1.5), (1.5, 3.0)]
    assert [*gaps_of(Outcome(sent=0.0))] == []
