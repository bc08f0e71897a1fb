"""What a Whisper is measured and calibrated with: synthetic sounds, and shipped text put into its mouth.

The two have nothing to do with each other: what counts is that every layer has something to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from basert.manifest import TOKENIZER, Blob, Speech
from engines.sounds import draw
from export import prose
from export.speech.sounds import speech_like

EVALUATION = (2.0, 6.0, 11.0, 17.0, 23.0, 29.0)  # seconds of each window's sound
CALIBRATION = (3.0, 9.0, 13.0, 19.0, 26.0, 28.0)
TOKENS = 96  # of a window's text, prompt included
CALIBRATION_SEED = 1000  # and on; others are for evaluation


@dataclass(frozen=True)
class Window:
    sound: list[Blob]
    ids: list[int]  # a prompt and a text

    def features(self, speech: Speech) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[mels, 2 * frames]"""
        return draw(self.sound, speech.mels, 2 * speech.frames)


def evaluation_windows(checkpoint: Path, speech: Speech, longest: int) -> list[Window]:
    """longest: tokens of each window."""
    return _windows(checkpoint, speech, EVALUATION, prose.evaluation(), 0, min(TOKENS, longest))


def calibration_windows(checkpoint: Path, speech: Speech, longest: int) -> list[Window]:
    """Other sounds and texts than the evaluation's."""
    text = prose.calibration()
    return _windows(checkpoint, speech, CALIBRATION, text, CALIBRATION_SEED, longest)


def prompt(speech: Speech) -> list[int]:
    """What a transcription without timestamps begins with, in the first language."""
    language = list(speech.languages.values())[:1]
    task = [] if speech.transcribe is None else [speech.transcribe]
    return [speech.sot, *language, *task, speech.no_timestamps]


def _windows(
    checkpoint: Path, speech: Speech, seconds: Sequence[float], text: str, seed: int, longest: int
) -> list[Window]:
    ids = Tokenizer.from_file(str(checkpoint / TOKENIZER)).encode(text, add_special_tokens=False).ids
    before = prompt(speech)
    size = min(longest - len(before), len(ids) // len(seconds))
    return [
        Window(
            speech_like(seed + number, length, speech.mels), before + ids[number * size : (number + 1) * size]
        )
        for number, length in enumerate(seconds)
    ]
