"""Windows of sound that a few numbers describe: what goldens ask with, where no recording can be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from basert.manifest import Blob

SILENCE = -0.6  # of a log-mel window as Whisper scales it, where loud speech reaches 1.4


def draw(blobs: Sequence[Blob], mels: int, columns: int) -> NDArray[np.float32]:
    """The sum of all blobs over silence: float32 [mels, columns]."""
    heights = np.array([blob.height for blob in blobs])
    rows = _bells([blob.mel for blob in blobs], [blob.rows for blob in blobs], mels)
    times = _bells([blob.frame for blob in blobs], [blob.columns for blob in blobs], columns)
    window: NDArray[np.float32] = ((rows.T * heights) @ times + SILENCE).astype(np.float32)
    return window


def _bells(middles: Sequence[float], radii: Sequence[float], length: int) -> NDArray[np.float64]:
    """[bells, length]"""
    places = np.arange(length) - np.array(middles)[:, None]
    bells: NDArray[np.float64] = np.exp(-((places / np.array(radii)[:, None]) ** 2))
    return bells
