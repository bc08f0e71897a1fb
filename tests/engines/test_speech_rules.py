"""Whisper's rules against transformers' own, on random logits and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from basert.manifest import Speech
from engines.drawing import NEVER
from engines.speech_rules import SpeechRules

# A vocabulary of Whisper's layout: text, the end, <|startoftranscript|>, <|notimestamps|>, timestamps.
TEXT, TIMES, PROMPT = 40, 101, [41]
END, SOT, NO_TIMESTAMPS, BEGIN = TEXT, TEXT + 1, TEXT + 2, TEXT + 3
VOCAB = BEGIN + TIMES
SPEECH = Speech(
    mels=80,
    frames=1500,
    languages={},
    sot=SOT,
    no_timestamps=NO_TIMESTAMPS,
    timestamp_begin=BEGIN,
    suppress=[3, 5, 7, SOT],
    suppress_first=[9, END],
    max_initial_timestamp=10,
)
RULES = SpeechRules(SPEECH, END)

text = st.integers(0, TEXT - 1)
times = st.integers(BEGIN, VOCAB - 1)
answers = st.lists(st.one_of(text, text, times), max_size=8)


def reference(logits: np.ndarray, answer: list[int], timestamps: bool) -> np.ndarray:
    """What transformers' processors leave, in its order; [vocab], -inf for what is barred."""
    processors = [
        SuppressTokensLogitsProcessor(SPEECH.suppress),
        SuppressTokensAtBeginLogitsProcessor(SPEECH.suppress_first, begin_index=len(PROMPT)),
    ]
    if timestamps:
        config = GenerationConfig(
            eos_token_id=END,
            no_timestamps_token_id=NO_TIMESTAMPS,
            max_initial_timestamp_index=SPEECH.max_initial_timestamp,
        )
        processors.append(WhisperTimeStampLogitsProcessor(config, begin_index=len(PROMPT)))
    ids, scores = torch.tensor([PROMPT + answer]), torch.tensor(logits)[None]
    for processor in processors:
        scores = processor(ids, scores)
    if not timestamps:  # that there are none then is basert's own rule
        scores[:, NO_TIMESTAMPS:] = -torch.inf
    return scores[0].numpy()


@settings(max_examples=400, deadline=None)
@given(answer=answers, seed=st.integers(0, 2**32 - 1), lift=st.integers(-8, 8), timestamps=st.booleans())
def test_they_are_those_of_transformers(answer: list[int], seed: int, lift: int, timestamps: bool) -> None:
    """lift: of the timestamps, over the rest."""
    logits = np.random.default_rng(seed).normal(0, 3, VOCAB).astype(np.float32)
    logits[BEGIN:] += np.float32(lift)
    expected, found = reference(logits, answer, timestamps), logits.copy()
    RULES.hold(found, answer, timestamps)
    barred = np.isinf(expected)
    np.testing.assert_array_equal(found[~barred], logits[~barred])
    assert (found[barred] == NEVER).all()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lift=st.integers(-8, 8))
def test_whatever_the_logits_an_answer_is_well_formed(seed: int, lift: int) -> None:
    """Timestamps never fall, come in pairs but for the last, and something may always come next."""
    draw, answer = np.random.default_rng(seed), list[int]()
    for _ in range(60):
        logits = draw.normal(0, 3, VOCAB).astype(np.float32)
        logits[BEGIN:] += np.float32(lift)
        RULES.hold(logits, answer, timestamps=True)
        answer.append(int(logits.argmax()))
        assert logits[answer[-1]] > NEVER
        if answer[-1] == END:
            break
    told = [token for token in answer if token >= BEGIN]
    assert told == sorted(told)
    assert BEGIN <= answer[0] <= BEGIN + SPEECH.max_initial_timestamp
    runs = "".join("t" if token >= BEGIN else "." for token in answer[1:])
    assert "ttt" not in runs


@pytest.mark.parametrize(("likely", "chosen"), [(-1.0, False), (0.0, True)])
def test_a_timestamp_comes_where_all_together_are_likelier_than_any_text(likely: float, chosen: bool) -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[11] = 4.0
    logits[BEGIN:] = likely  # a hundred of them, together log(101) = 4.6 more
    RULES.hold(logits, [BEGIN, 1], timestamps=True)
    assert (int(logits.argmax()) >= BEGIN) == chosen
