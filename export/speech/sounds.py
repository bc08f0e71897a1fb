"""Sounds that resemble speech, made of nothing but a seed: what Whispers are measured and calibrated with.

    a syllable    harmonics of a voice, low and narrow, as loud as the vowel's formants have them; above
                  them formants, broad; before some of them a fricative, high and noisy

Whispers hear words in them ("Okay, so check out the end of the video.").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from basert.manifest import Blob

SECOND = 100  # columns of a window
SYLLABLES = 4.0  # a second
RESOLVED = 0.35  # of the rows: where harmonics are apart
LOUDEST = 1.6  # over silence


def speech_like(seed: int, seconds: float, mels: int) -> list[Blob]:
    draw, at, blobs = np.random.default_rng(seed), 0.3, []
    while at < seconds:
        blobs += list(_syllable(draw, at * SECOND, mels))
        pause = draw.exponential(0.6) if draw.random() < 0.15 else 0.0
        at += draw.uniform(0.7, 1.3) / SYLLABLES + pause
    return [Blob(*(round(float(number), 2) for number in blob)) for blob in blobs]


def _syllable(draw: Any, at: float, mels: int) -> Iterator[tuple[float, float, float, float, float]]:
    loud, long = LOUDEST * draw.uniform(0.6, 1.0), draw.uniform(5, 12)
    pitch = mels * draw.uniform(0.035, 0.06)  # rows between harmonics
    formants = mels * np.array([draw.uniform(0.1, 0.28), draw.uniform(0.3, 0.62), draw.uniform(0.65, 0.75)])
    for row in np.arange(pitch, RESOLVED * mels, pitch):
        near = np.exp(-(((formants - row) / (0.09 * mels)) ** 2)).max()
        yield row, at + draw.normal(0, 1), loud * (0.3 + 0.7 * near), 0.018 * mels, long
    for row in formants[formants > RESOLVED * mels]:
        yield row, at + draw.normal(0, 1), loud * draw.uniform(0.5, 0.8), 0.05 * mels, long
    if draw.random() < 0.4:
        for _ in range(4):
            row, before = mels * draw.uniform(0.7, 0.95), at - long - draw.uniform(0, 6)
            yield row, before, loud * draw.uniform(0.2, 0.5), 0.08 * mels, draw.uniform(2, 4)
