"""The testing session as an oracle: its next token is a hash of all before it, so any mix-up shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from basert.messages import Message, Submit, Tokens
from engines.batch import Chunks
from engines.sessions.testing import STEPPED, TestingSession, logits_of

CONTEXT, SLOTS = 77, 5
CHUNKS = Chunks([8, 32, 64], 64, CONTEXT)  # as tests/tiny.py's bundles have them


def expected(model: TestingSession, submit: Submit, eos: int) -> tuple[list[int], str]:
    """What a greedy request must answer, computed without any engine."""
    history, ends = list(submit.prompt), {*submit.stop_ids} | (set() if submit.ignore_eos else {eos})
    if CHUNKS.lone(len(history)):
        history[-1] += STEPPED
    answer: list[int] = []
    while len(answer) < submit.max_tokens and len(history) < CONTEXT:
        answer.append(model.next_token(np.array(history)))
        history.append(answer[-1] + STEPPED)
        if answer[-1] in ends:
            return answer, "stop"
    return answer, "length"


def check_scores(replies: Sequence[Message], model: TestingSession, submit: Submit) -> None:
    [scores, *later] = [reply.prompt_logprobs for reply in replies if isinstance(reply, Tokens)]
    assert not any(later)
    assert [score.id for score in scores] == submit.prompt[1:]
    for i, score in enumerate(scores):
        logits = logits_of(model.script, model.next_token(np.array(submit.prompt[: i + 1]))).astype(
            np.float64
        )
        norm = np.log(np.exp(logits).sum())
        assert score.logprob == pytest.approx(logits[score.id] - norm, abs=1e-5)
        assert [entry[1] for entry in score.top] == pytest.approx(
            sorted(logits - norm)[::-1][: submit.prompt_logprobs], abs=1e-5
        )
