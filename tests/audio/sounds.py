"""Sound files of every kind, written by PyAV."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray


def sine(seconds: float = 2.0, frequency: float = 440.0) -> NDArray[np.float32]:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def written(
    samples: NDArray[np.float32],
    container: str,
    codec: str | None,
    rate: int = 48_000,
    layout: str = "mono",
    picture: str | None = None,
) -> bytes:
    """`samples` (mono, 16 kHz) as a file. codec: None for no sound; picture: a film's codec."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        film = target.add_stream(picture, rate=10) if picture else None
        sound = target.add_stream(codec, rate=rate, layout=layout) if codec else None
        if film:
            _write_film(target, film)
        if sound:
            _write_sound(target, sound, samples)
    return file.getvalue()


def _write_film(target, film) -> None:
    film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
    for at in range(10):
        picture = np.full((48, 64, 3), 20 * at, np.uint8)
        target.mux(film.encode(av.VideoFrame.from_ndarray(picture)))
    target.mux(film.encode(None))


def _write_sound(target, sound, samples: NDArray[np.float32]) -> None:
    context = sound.codec_context
    pcm = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
    pcm.sample_rate = 16_000
    resampler = av.AudioResampler(
        context.format, context.layout, context.rate, frame_size=context.frame_size or 1024
    )
    for frame in [*resampler.resample(pcm), *resampler.resample(None), None]:
        target.mux(sound.encode(frame))
