"""A speech model's engine, stepped by hand: what it hears, when, and what it tells of it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from basert.errors import BundleError
from basert.manifest import SPEECH_GOLDEN
from basert.messages import Grammar, Sampling, Sound, Submit, Tokens
from engines.sessions.testing import heard_of
from tests.engines.harness import GREEDY, PEER, SteppedEngine
from tests.engines.spoken import Spoken
from tests.tiny import write_testing_bundle
from tests.tiny_speech import LANGUAGES, SPOKEN, speech_tokenizer, window, write_testing_speech

TOKENIZER = speech_tokenizer()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_testing_speech(tmp_path)


@pytest.fixture
def spoken(bundle: Path) -> Spoken:
    return Spoken(bundle)


@pytest.fixture
def engine(bundle: Path) -> SteppedEngine:
    return SteppedEngine(bundle)


def hear(number: int, **more: bool) -> Sound:
    return Sound(window(number), **more)


def prompt(spoken: Spoken, *more: int) -> list[int]:
    return [spoken.speech.sot, spoken.speech.languages["en"], spoken.speech.transcribe or 0, *more]


def said(number: int) -> str:
    """What the bundle's script says of a window."""
    return SPOKEN[heard_of(window(number)) % len(SPOKEN)]


def test_a_window_is_transcribed_with_timestamps_or_without(engine: SteppedEngine, spoken: Spoken) -> None:
    timed = engine.answer(prompt(spoken), 50, sound=hear(1))
    plain = engine.answer(prompt(spoken, spoken.speech.no_timestamps), 50, sound=hear(1, timestamps=False))
    assert TOKENIZER.decode(timed, skip_special_tokens=False) == said(1) + "<|endoftext|>"
    assert TOKENIZER.decode(plain) == TOKENIZER.decode(TOKENIZER.encode(said(1)).ids)
    assert max(plain) < spoken.speech.timestamp_begin


def test_a_window_that_was_heard_is_not_computed_again(engine: SteppedEngine, spoken: Spoken) -> None:
    engine.answer(prompt(spoken), 50, sound=hear(1))
    other = engine.answer(prompt(spoken), 50, sound=hear(2))
    again = engine.answer(prompt(spoken), 50, Sampling(temperature=0.4), sound=hear(1))
    assert TOKENIZER.decode(other, skip_special_tokens=False) == said(2) + "<|endoftext|>"
    assert TOKENIZER.decode(again, skip_special_tokens=False) == said(1) + "<|endoftext|>"
    stats = engine.stats()
    assert (stats.windows_heard, stats.windows_reused) == (2, 1)
    assert 0 < stats.listen_seconds < stats.run_seconds


def test_two_that_come_together_hear_their_window_once(engine: SteppedEngine, spoken: Spoken) -> None:
    numbers = [engine.ask(prompt(spoken), 50, sound=hear(3)) for _ in range(3)]
    engine.finish()
    assert len({tuple(engine.tokens(number)) for number in numbers}) == 1
    assert (engine.stats().windows_heard, engine.stats().windows_reused) == (1, 2)


def test_the_window_that_was_heard_longest_ago_goes_first(spoken: Spoken, bundle: Path) -> None:
    engine = SteppedEngine(bundle, slots=2)
    for number in (1, 2, 1, 3, 1, 3):  # 2 has to go for 3
        engine.answer(prompt(spoken), 3, sound=hear(number))
    assert (engine.stats().windows_heard, engine.stats().windows_reused) == (3, 3)


def test_a_row_that_is_moved_takes_along_what_it_has_heard(engine: SteppedEngine, spoken: Spoken) -> None:
    assert said(2) != said(5)
    numbers = [engine.ask(prompt(spoken), 50, sound=hear(number)) for number in (1, 2, 3, 5)]
    while not engine.tokens(numbers[-1]):
        engine.step()
    for number in numbers[1:3]:  # rows 1 and 2
        engine.cancel(number)
    engine.step()
    owners = engine.scheduler._slots.owners
    assert [row for row, owner in enumerate(owners) if owner is not None] == [0, 1]
    engine.finish()
    for number in (5, 2, 3):
        again = engine.answer(prompt(spoken), 50, sound=hear(number))
        assert TOKENIZER.decode(again, skip_special_tokens=False) == said(number) + "<|endoftext|>"
    assert engine.stats().windows_heard == 5  # the second was overwritten


def test_streams_go_on_between_windows(engine: SteppedEngine, spoken: Spoken) -> None:
    running = engine.ask(prompt(spoken), 50, sound=hear(1))
    engine.step(3)
    before = len(engine.tokens(running))
    for number in (2, 3, 4):
        engine.ask(prompt(spoken), 50, sound=hear(number))
    while engine.stats().windows_heard < 4:
        engine.step()
    assert len(engine.tokens(running)) >= before + 2


def test_whether_anybody_speaks_is_told_once(engine: SteppedEngine, spoken: Spoken) -> None:
    before = TOKENIZER.encode(" the system").ids
    for prompted in ([spoken.speech.sot], prompt(spoken), [spoken.speech.previous, *before, *prompt(spoken)]):
        for number, likely in ((0, True), (1, False)):
            asked = engine.ask(prompted, 4, sound=hear(number))  # type: ignore[arg-type]
            engine.finish()
            first, *others = [reply for reply in engine.replies[PEER, asked] if isinstance(reply, Tokens)]
            assert (first.no_speech > 0.9) == likely
            assert (first.no_speech >= 0, {other.no_speech for other in others}) == (True, {-1.0})


def test_a_language_is_found_by_what_is_allowed(engine: SteppedEngine, spoken: Spoken) -> None:
    languages = list(spoken.speech.languages.values())
    for number in (1, 2, 3):
        [found] = engine.answer([spoken.speech.sot], 1, sound=hear(number), allowed_ids=languages)
        assert LANGUAGES[languages.index(found)] == LANGUAGES[heard_of(window(number)) % len(LANGUAGES)]


def test_attention_comes_with_each_token_that_wants_it(engine: SteppedEngine, spoken: Spoken) -> None:
    aligned = engine.ask(prompt(spoken), 50, sound=hear(1, alignment=True))
    plain = engine.ask(prompt(spoken), 50, sound=hear(1))
    engine.finish()
    for number, wanted in ((aligned, True), (plain, False)):
        replies = [reply for reply in engine.replies[PEER, number] if isinstance(reply, Tokens)]
        for i, reply in enumerate(replies):
            assert len(reply.alignment) == (2 * 2 * 1500 if wanted else 0)
            if wanted:
                attention = np.frombuffer(reply.alignment, "<f2").reshape(2, 1500)
                assert attention.argmax(axis=1).tolist() == [10 * (3 + i)] * 2


def test_logprobs_are_those_of_what_the_rules_leave(tmp_path: Path) -> None:
    """As openai-whisper's avg_logprob has it: what is barred has no share."""
    bundle = write_testing_speech(tmp_path, peak=1.0)
    engine, spoken = SteppedEngine(bundle), Spoken(bundle)
    number = engine.ask(prompt(spoken), 1, sound=hear(1), logprobs=3)
    engine.finish()
    [told] = engine.logprobs(number)
    begin, last = spoken.speech.timestamp_begin, spoken.speech.max_initial_timestamp
    assert all(begin <= token <= begin + last for token, _ in told.top)
    submit = Submit(1, prompt(spoken), 1, GREEDY, sound=hear(1))
    logits = spoken.logits(spoken.history(submit.prompt), submit)[begin : begin + last + 1]
    assert told.logprob == pytest.approx(float(logits.max() - np.logaddexp.reduce(logits)), abs=1e-5)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "answers to sound"),
        ({"sound": Sound(b"")}, "float32 [80, 3000], 960,000 bytes; this one has 0"),
        ({"sound": Sound(window(1)[:-4])}, "this one has 959,996"),
        ({"sound": Sound(window(1)[:-4] + np.float32(math.nan).tobytes())}, "no numbers"),
        ({"sound": Sound(np.float32(-math.inf).tobytes() + window(1)[4:])}, "no numbers"),
        ({"sound": Sound(window(1)), "grammar": Grammar("{}")}, "neither a grammar"),
        ({"sound": Sound(window(1)), "prompt_logprobs": 0}, "nor prompt_logprobs"),
    ],
)
def test_what_cannot_be_heard_is_refused(
    engine: SteppedEngine, spoken: Spoken, more: dict[str, Any], says: str
) -> None:
    number = engine.ask(prompt(spoken), 5, **more)
    engine.finish()
    failure = engine.failure(number)
    assert failure.code == "invalid"
    assert says in failure.message


def test_alignment_is_refused_where_nothing_is_known_of_it(tmp_path: Path) -> None:
    bundle = write_testing_speech(tmp_path, alignment_heads=0)
    engine = SteppedEngine(bundle)
    number = engine.ask(prompt(Spoken(bundle)), 5, sound=hear(1, alignment=True))
    assert "alignment heads" in engine.failure(number).message


def test_a_model_that_hears_nothing_says_so(tmp_path: Path) -> None:
    engine = SteppedEngine(write_testing_bundle(tmp_path))
    number = engine.ask([10, 11], 5, sound=hear(1))
    assert (engine.failure(number).code, "hears nothing" in engine.failure(number).message) == (
        "invalid",
        True,
    )


def test_a_listener_that_fails_takes_its_request_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_testing_speech(tmp_path, deaf_to=heard_of(window(2)))
    engine, spoken = SteppedEngine(bundle), Spoken(bundle)
    running = engine.ask(prompt(spoken), 50, sound=hear(1))
    engine.step(4)
    with caplog.at_level(logging.CRITICAL):
        failed = engine.ask(prompt(spoken), 50, sound=hear(2))
        engine.finish()
    assert engine.ending(failed) == "engine_failed"
    assert TOKENIZER.decode(engine.tokens(running), skip_special_tokens=False) == said(1) + "<|endoftext|>"
    assert engine.answer(prompt(spoken), 50, sound=hear(1)) == engine.tokens(running)


def test_after_a_failure_free_rows_have_heard_nothing(tmp_path: Path) -> None:
    """Nobody knows what the failed run left in them."""
    bundle = write_testing_speech(tmp_path, deaf_to=heard_of(window(2)))
    engine, spoken = SteppedEngine(bundle), Spoken(bundle)
    engine.answer(prompt(spoken), 50, sound=hear(1))
    engine.answer(prompt(spoken), 50, sound=hear(2))
    engine.answer(prompt(spoken), 50, sound=hear(1))
    assert engine.stats().windows_reused == 0


def test_a_cancelled_window_is_not_heard(engine: SteppedEngine, spoken: Spoken) -> None:
    number = engine.ask(prompt(spoken), 50, sound=hear(1))
    engine.cancel(number)
    engine.finish()
    assert (engine.stats().windows_heard, engine.stats().requests_cancelled) == (0, 1)


@pytest.mark.parametrize(("atol", "drifted"), [(1e-4, True), (2.0, False)])
def test_a_bundle_that_hears_other_things_is_refused(bundle: Path, atol: float, drifted: bool) -> None:
    golden = (bundle / SPEECH_GOLDEN).read_text()
    assert "30.0" in golden
    (bundle / SPEECH_GOLDEN).write_text(golden.replace("30.0", "29.0").replace("0.0001", str(atol)))
    if drifted:
        with pytest.raises(BundleError, match="golden case 0"):
            SteppedEngine(bundle)
    else:
        SteppedEngine(bundle)
