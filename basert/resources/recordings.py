"""From an uploaded file to samples, and to the stretches of it that are worth hearing. Knows no model.

All of it happens beside the event loop: decoding in a process of its own, arithmetic in threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from basert.audio.decode import RATE, Limits, decode
from basert.config import AppConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from basert.audio.windows import Detection, Window

LONGEST_HELD = 4  # recordings of the greatest length, or as much in shorter ones


@dataclass(frozen=True)
class Recording:
    samples: NDArray[np.float32]  # [n], mono, RATE a second
    clips: Sequence[Window]  # in order; what lies between them nobody speaks in
    close: Callable[[], None]  # makes room for others; the samples are to be forgotten then

    @property
    def duration(self) -> float:
        return len(self.samples) / RATE

    async def features(self, start: float, end: float, mels: int) -> bytes:
        """A window's log-mel spectrogram as messages.Sound has it; start, end: seconds."""
        piece = self.samples[round(start * RATE) : round(end * RATE)]
        return await asyncio.to_thread(_features, piece, mels)


class Studio:
    """Where an HTTP worker reads recordings: as many at a time as there are CPUs, as there is room for."""

    def __init__(self, config: AppConfig) -> None:
        self._limits = Limits(config.max_audio_bytes, config.max_audio_seconds)
        self._places = asyncio.Semaphore(os.cpu_count() or 1)
        self._room = _Room(LONGEST_HELD * config.max_audio_seconds)

    async def read(self, file: Path, how: Detection | None) -> Recording:
        """how: speech is told from silence; None: it is not. The recording is to be closed.

        Raises what decode raises.
        """
        reserved = self._limits.most_seconds  # as long as nobody knows better
        async with self._places:
            await self._room.take(reserved)
            try:
                samples = await decode(file, self._limits)
                clips = await asyncio.to_thread(_clips, samples, how)
            except BaseException:
                self._room.give(reserved)
                raise
        duration = len(samples) / RATE
        self._room.give(reserved - duration)
        return Recording(samples, clips, partial(self._room.give, duration))


class _Room:
    """Seconds of sound that may be held in memory at once."""

    def __init__(self, most: float) -> None:
        self._left = most
        self._changed = asyncio.Event()

    async def take(self, seconds: float) -> None:
        while self._left < seconds:
            await self._changed.wait()
        self._left -= seconds

    def give(self, seconds: float) -> None:
        self._left += seconds
        self._changed.set()
        self._changed = asyncio.Event()


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
