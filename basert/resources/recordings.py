"""From an uploaded file to samples, and to the stretches of it that are worth hearing. Knows no model.

All of it happens beside the event loop: decoding in a process of its own, arithmetic in threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from basert.audio.decode import RATE, Limits, decode
from basert.config import AppConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from basert.audio.windows import Detection, Window


@dataclass(frozen=True)
class Recording:
    samples: NDArray[np.float32]  # [n], mono, RATE a second
    clips: Sequence[Window]  # in order; what lies between them nobody speaks in
    cut: bool  # clips are at most a window long, cut at silence; else the only one is all of it

    @property
    def duration(self) -> float:
        return len(self.samples) / RATE

    async def features(self, start: float, end: float, mels: int) -> bytes:
        """A window's log-mel spectrogram as messages.Sound has it; start, end: seconds."""
        piece = self.samples[round(start * RATE) : round(end * RATE)]
        return await asyncio.to_thread(_features, piece, mels)


class Studio:
    """Where one HTTP worker reads recordings: as many at a time as there are CPUs."""

    def __init__(self, config: AppConfig) -> None:
        self._limits = Limits(config.max_audio_bytes, config.max_audio_seconds)
        self._places = asyncio.Semaphore(os.cpu_count() or 1)

    async def read(self, file: Path, how: Detection | None) -> Recording:
        """how: speech is told from silence; None: it is not. Raises what decode raises."""
        async with self._places:
            samples = await decode(file, self._limits)
            clips = await asyncio.to_thread(_clips, samples, how)
        return Recording(samples, clips, how is not None)


def _features(samples: NDArray[np.float32], mels: int) -> bytes:
    from basert.audio.features import log_mel

    return log_mel(samples, mels).astype("<f4", copy=False).tobytes()


def _clips(samples: NDArray[np.float32], how: Detection | None) -> list[Window]:
    from basert.audio.voice import speech_probabilities
    from basert.audio.windows import Window, cut

    duration = len(samples) / RATE
    if how is None:
        return [Window(0.0, duration, ((0.0, duration),))]
    return cut(speech_probabilities(samples), duration, how)
