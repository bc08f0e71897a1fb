from __future__ import annotations

import importlib.util

import numpy as np
import onnxruntime
import pytest

from basert.audio.voice import CHUNK, speech_probabilities
from basert.audio.weights import silero
from basert.errors import NotInstalled
from tests.audio.recordings import NAMES, noise, silence, speech
from tests.packages import unpacked


def as_published(samples: np.ndarray) -> np.ndarray:
    """The probabilities by Silero's own graph, chunk by chunk."""
    session = onnxruntime.InferenceSession(unpacked("silero-vad==6.2.3"), providers=["CPUExecutionProvider"])
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    found = []
    for chunk in np.pad(samples, (0, -len(samples) % CHUNK)).reshape(-1, CHUNK):
        given = {"input": np.concatenate([before, chunk])[None], "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, given)
        found.append(probability[0, 0])
        before = chunk[-64:]
    return np.array(found)


def test_as_silero_has_it() -> None:
    """Its weights come in 16 bits here, which is all the difference. Long enough for several blocks."""
    parts = [part for name in NAMES for part in (speech(name), silence(0.5))]
    samples = np.concatenate([*parts, noise(2, 0.01)])
    np.testing.assert_allclose(speech_probabilities(samples), as_published(samples), atol=0.01)


def test_any_length() -> None:
    assert len(speech_probabilities(silence(0))) == 0
    for count in (1, CHUNK - 1, CHUNK, CHUNK + 1, 256 * CHUNK + 1):
        found = speech_probabilities(np.resize(speech(), count))
        assert found.dtype == np.float32
        assert len(found) == -(-count // CHUNK)


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match="install basert with its extra `audio`"):
        silero()
