"""POST /v1/audio/transcriptions over a fake model: real sound in, what the model says of it out."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from falcon.testing import ASGIConductor

from basert.audio.features import log_mel
from basert.errors import EngineFailed, Overloaded
from basert.messages import Submit
from tests.audio.recordings import NAMES, silence, speech
from tests.http.asking import typed_events
from tests.http.fakes import FakeModel, FakeModels, Said
from tests.http.hearing import ask, long, post, refused, short, wav

HELLO = "<|0.00|> Hello world.<|2.00|><|2.00|> Boxing wizards jump.<|4.50|>"


@pytest.fixture
def whisper(models: FakeModels) -> FakeModel:
    return models.add_speech()


@pytest.fixture
def english(models: FakeModels) -> FakeModel:
    return models.add_speech(languages=())


def prompt(model: FakeModel, number: int = -1) -> str:
    return model.text.decode(model.engine.requests[number].prompt, skip_special=False)


def asked(model: FakeModel) -> list[Submit]:
    """What was asked beside languages."""
    return [one for one in model.engine.requests if not one.allowed_ids]


async def test_json_is_text_and_usage(client: ASGIConductor, whisper: FakeModel) -> None:
    answer = await ask(client, language="en")
    seconds = round(len(speech()) / 16_000, 2)
    assert answer == {
        "text": "Hello world. Boxing wizards jump.",
        "usage": {"type": "duration", "seconds": seconds},
    }
    assert prompt(whisper) == "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
    assert len(whisper.engine.requests) == 1


async def test_the_model_hears_the_speech_and_no_silence(client: ASGIConductor, whisper: FakeModel) -> None:
    """Its features are those of the window that was cut out, wherever that lies in the recording."""
    padded = np.concatenate([silence(40), speech(), silence(20)])
    await ask(client, file=wav(padded), language="en")
    (heard,) = asked(whisper)
    assert heard.sound is not None
    told = np.frombuffer(heard.sound.features, "<f4").reshape(80, 3000)
    assert (told.std(axis=0) > 0.01).sum() == pytest.approx(len(speech()) / 160, abs=80)


async def test_all_of_a_short_recording_is_heard_without_detection(
    client: ASGIConductor, whisper: FakeModel
) -> None:
    await ask(client, language="en", vad_filter="false")
    (heard,) = asked(whisper)
    assert heard.sound is not None
    told = np.frombuffer(heard.sound.features, "<f4").reshape(80, 3000)
    samples = (speech() * 32767).astype("<i2").astype(np.float32) / 32768
    assert np.array_equal(told, log_mel(samples))
