"""`python -m basert.audio.decoding`: one sound file to samples, in a process of its own, behind limits.

A file on standard input (seekable) becomes s16le mono at 16 kHz on standard output (a file, too). The exit
status says how it went (`Outcome`). Knows ffmpeg through PyAV, no numpy: that would double the time to start.

Files are what strangers send. So this process takes its own rights away before it looks at one: time, memory,
the right to open anything. It reads no formats that name other files (playlists, concatenations).
"""

from __future__ import annotations

import enum
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from basert.orphans import end_with_parent

RATE = 16_000  # samples per second
_LONGEST_PACKETS = 2.5e-3  # seconds: no audio format in use cuts time finer than that, damaged ones do

_FORMATS = "wav,w64,aiff,au,caf,flac,mp3,aac,amr,ogg,matroska,mov,mpeg,mpegts,avi,asf,flv"
_CODECS = (
    "aac,aac_latm,ac3,alac,amrnb,amrwb,eac3,flac,gsm,gsm_ms,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,libopus,"
    "speex,libspeex,vorbis,libvorbis,wmav1,wmav2,wmapro,adpcm_ima_wav,adpcm_ima_qt,adpcm_ms,adpcm_g722,adpcm_g726,"
    "pcm_alaw,pcm_mulaw,pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be"
)
_OPTIONS = {
    "format_whitelist": _FORMATS,
    "codec_whitelist": _CODECS,  # also keeps pictures from being decoded while streams are probed
    "protocol_whitelist": "none",
    "max_streams": "64",
}


class Outcome(enum.IntEnum):
    """How it went, as an exit status. What is not here (a signal, 1) is a decoder that broke down."""

    DECODED = 0
    UNREADABLE = 10
    NO_SOUND = 11
    TOO_LONG = 12
    NOT_INSTALLED = 13
    TOO_MUCH_MEMORY = 14


def main(most_seconds: float, most_cpu_seconds: int, most_memory: int, parent: int) -> Outcome:
    end_with_parent(signal.SIGKILL, parent)
    try:
        import av
        import av.subtitles.stream  # PyAV loads it late, when nothing can be opened any more
    except ImportError:
        return Outcome.NOT_INSTALLED
    _confine(most_cpu_seconds, most_memory)
    av.logging.set_level(None)
    try:
        return _decode(sys.stdin.buffer, sys.stdout.buffer, most_seconds)
    except MemoryError:
        return Outcome.TOO_MUCH_MEMORY
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError, OSError):
        return Outcome.UNREADABLE


def _confine(most_cpu_seconds: int, most_memory: int) -> None:
    """From here on: so much time and memory, no new file and no socket, no core dump."""
    limits = {
        resource.RLIMIT_CPU: most_cpu_seconds,
        resource.RLIMIT_AS: most_memory,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _decode(source: BinaryIO, target: BinaryIO, most_seconds: float) -> Outcome:
    import av

    with av.open(source, options=_OPTIONS, metadata_errors="replace", io_open=_refuse) as container:
        playable = [one for one in container.streams.audio if _codec(one) in _CODECS.split(",")]
        if not playable:
            return Outcome.UNREADABLE if container.streams.audio else Outcome.NO_SOUND
        most_samples = int(most_seconds * RATE)
        written = 0
        for piece in _resampled(_frames(container, playable[0], most_seconds)):
            written += len(piece) // 2
            if written > most_samples:
                return Outcome.TOO_LONG
            target.write(piece)
    target.flush()
    return Outcome.DECODED if written else Outcome.UNREADABLE


def _codec(stream: Any) -> str | None:
    context = stream.codec_context  # None where ffmpeg has no decoder
    return context.name if context else None


def _refuse(url: str, *_: Any) -> None:
    raise PermissionError(f"a file may not name another one: {url}")


def _frames(container: Any, stream: Any, most_seconds: float) -> Iterator[Any]:
    """The stream's frames. A damaged packet is left out, and where the file breaks off, it ends."""
    import av

    packets = container.demux(stream)
    for _ in range(int(most_seconds / _LONGEST_PACKETS) + 1000):
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        with suppress(av.error.FFmpegError):
            yield from packet.decode()


def _resampled(frames: Iterator[Any]) -> Iterator[bytes]:
    """Frames of any rate, layout and sample format, which may change on the way, as s16le mono at 16 kHz."""
    import av

    resampler, form = None, None
    for frame in frames:
        frame.pts = None  # jumps in a file's clock are no business of ours
        if resampler is None or form != _form(frame):
            yield from _drained(resampler)
            resampler, form = av.AudioResampler(format="s16", layout="mono", rate=RATE), _form(frame)
        yield from (_bytes(one) for one in resampler.resample(frame))
    yield from _drained(resampler)


def _form(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _drained(resampler: Any) -> Iterator[bytes]:
    if resampler is not None:
        yield from (_bytes(one) for one in resampler.resample(None))


def _bytes(frame: Any) -> bytes:
    return bytes(frame.planes[0])[: frame.samples * 2]  # planes are padded


if __name__ == "__main__":
    outcome = main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    os._exit(outcome)  # no clean-up: what a damaged file left behind might crash in it
