from __future__ import annotations

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from basert.audio.features import FRAMES, WINDOW, log_mel
from tests.audio.recordings import NAMES, noise, speech


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("count", [1, 160, 47_999, WINDOW - 250, WINDOW - 100, WINDOW, WINDOW + 5_000])
def test_as_transformers_has_it(bands: int, count: int) -> None:
    samples = np.concatenate([speech(name) for name in NAMES * 2])[:count]
    assert len(samples) == min(count, WINDOW) or count > WINDOW
    reference = WhisperFeatureExtractor(feature_size=bands)(
        samples, sampling_rate=16_000, return_tensors="np"
    )
    features = log_mel(samples, bands)
    assert features.shape == (bands, FRAMES)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, reference.input_features[0], atol=1e-4)


def test_noise_silence_and_nothing() -> None:
    extractor = WhisperFeatureExtractor()
    for samples in (noise(30, 0.3), noise(3, 1e-9), np.zeros(5_000, np.float32)):
        reference = extractor(samples, sampling_rate=16_000, return_tensors="np").input_features[0]
        np.testing.assert_allclose(log_mel(samples), reference, atol=1e-4)
    np.testing.assert_array_equal(log_mel(np.empty(0, np.float32)), log_mel(np.zeros(WINDOW, np.float32)))
