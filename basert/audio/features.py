"""Samples to the log-mel spectrogram that Whisper reads. Knows samples and arrays, no files and no model.

The numbers are those of transformers' WhisperFeatureExtractor (a test holds them together): 25 ms Hann frames
every 10 ms, Slaney's mel bands, log10 cut off 8 below the loudest value of the window.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # samples per second
HOP = 160  # samples from frame to frame: 10 ms
FRAMES = 3000  # of a window
WINDOW = FRAMES * HOP  # samples: 30 s

_FRAME = 400  # samples: 25 ms
_BLOCK = 250  # frames at once: what they take stays in the processor's cache
_FLOOR = 1e-10


def log_mel(samples: NDArray[np.float32], bands: int = 80) -> NDArray[np.float32]:
    """Features [bands, FRAMES] f32 of at most WINDOW samples f32, which silence is added to.

    bands: 80, or 128 for large-v3 and its kin. Silence behind the samples costs nothing.
    """
    heard = min(FRAMES, -(-(len(samples) + _FRAME // 2) // HOP))  # frames with any sample in them
    padded = np.zeros(heard * HOP + _FRAME, np.float32)
    kept = samples[: len(padded) - _FRAME // 2]
    padded[_FRAME // 2 : _FRAME // 2 + len(kept)] = kept
    _reflect(padded, samples)
    power = np.full((bands, FRAMES), _FLOOR, np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::HOP][:heard]
    for first in range(0, heard, _BLOCK):
        block = frames[first : first + _BLOCK]
        power[:, first : first + len(block)] = _mel_power(block, bands)
    log = np.log10(np.maximum(power, _FLOOR, out=power), out=power)
    np.maximum(log, log.max() - np.float32(8), out=log)
    return (log + np.float32(4)) / np.float32(4)


def _reflect(padded: NDArray[np.float32], samples: NDArray[np.float32]) -> None:
    """Mirrors the ends as the reference does: before the first sample, behind the last of a full window."""
    half = _FRAME // 2
    padded[:half] = padded[half + 1 : 2 * half + 1][::-1]
    if len(samples) > WINDOW - half:
        end = half + WINDOW
        padded[end : end + half] = padded[end - half - 1 : end - 1][::-1]


def _mel_power(frames: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """Energy [bands, n] of frames [n, 400] in each mel band."""
    spectrum = np.fft.rfft(frames * _hann())
    power: NDArray[np.float32] = spectrum.real**2 + spectrum.imag**2  # type: ignore[assignment]
    return mel_filters(bands) @ power.T


@cache
def _hann() -> NDArray[np.float32]:
    """[400] f32, periodic."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)).astype(np.float32)


@cache
def mel_filters(bands: int) -> NDArray[np.float32]:
    """Triangles [bands, 201] f32 over the frequencies of a frame, each of the same area (Slaney's)."""
    frequencies = np.linspace(0, RATE / 2, _FRAME // 2 + 1)
    corners = _hertz(np.linspace(0, _mel(RATE / 2), bands + 2))
    widths = np.diff(corners)
    slopes = corners[:, None] - frequencies[None]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)


# Slaney's scale: linear up to 1,000 Hz (15 mel), then 27 mel for every factor of 6.4.


def _mel(hertz: float) -> float:
    return float(15 + 27 * np.log(hertz / 1000) / np.log(6.4)) if hertz >= 1000 else 3 * hertz / 200


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, 200 * mels / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
