"""Sound files to samples: float32, mono, 16 kHz. Starts a process for each file; knows no format.

A process, not a thread: ffmpeg reads what strangers send, and should it crash or run wild, nothing but that
file is lost. It starts in about 0.1 s. Both ends are files in memory: the event loop has no bytes to move.
Files that hold samples as they are wanted take none (basert.audio.plain).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from basert.audio.decoding import RATE, Outcome
from basert.audio.plain import pcm
from basert.errors import BasertError, InvalidRequest, NotInstalled, PayloadTooLarge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Limits:
    """What one file may cost."""

    most_bytes: int = 200 << 20
    most_seconds: float = 4 * 3600  # of sound
    most_cpu_seconds: int = 60
    most_wall_seconds: float = 120
    most_memory: int = 1 << 30  # bytes, of address space


async def decode(source: bytes | Path, limits: Limits | None = None) -> NDArray[np.float32]:
    """The first sound track of a sound or video file as samples [n] in -1..1, mono, RATE per second.

    The format is told by the content, whatever the file is called. A file that breaks off gives what it has.
    Raises InvalidRequest for what holds no sound or more than the limits allow, PayloadTooLarge for too many
    bytes, NotInstalled where the extra `audio` is not installed. Cancelled, it ends its process.
    """
    limits = limits or Limits()
    with _opened(source) as given, _memory("samples") as made:
        size = os.fstat(given).st_size
        if size > limits.most_bytes:
            raise PayloadTooLarge(
                f"The file has {size:,} bytes, and {limits.most_bytes:,} are allowed; compress or split it.",
                param="file",
            )
        if size == 0:
            raise InvalidRequest("The file is empty; send one with sound in it.", param="file")
        if (samples := await asyncio.to_thread(_plain, given, limits)) is not None:
            return samples
        status = await _run(given, made, limits)
        if status != Outcome.DECODED:
            raise _error(status, limits)
        return await asyncio.to_thread(_samples, made)


@contextmanager
def _opened(source: bytes | Path) -> Iterator[int]:
    """A descriptor to read the source from, seekable."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file.fileno()
    else:
        with _memory("file") as given:
            view = memoryview(source)
            while view:
                view = view[os.write(given, view) :]
            os.lseek(given, 0, os.SEEK_SET)
            yield given


@contextmanager
def _memory(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _run(given: int, made: int, limits: Limits) -> int:
    """The decoder's exit status; minus a signal's number if one ended it (SIGXCPU also when time was up)."""
    values = (limits.most_seconds, limits.most_cpu_seconds, limits.most_memory, os.getpid())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "basert.audio.decoding", *map(str, values)),
        stdin=given,
        stdout=made,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await asyncio.wait_for(process.wait(), limits.most_wall_seconds)
    except TimeoutError:
        return -signal.SIGXCPU
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _error(status: int, limits: Limits) -> BasertError:
    if status == Outcome.NOT_INSTALLED:
        return NotInstalled("Sound files cannot be read here; install basert with its extra `audio`.")
    if status == Outcome.TOO_LONG:
        text = f"The sound is longer than the {limits.most_seconds:g} seconds that are allowed; split it."
    elif status == Outcome.NO_SOUND:
        text = "The file has no sound track; send one with sound in it."
    elif status in (-signal.SIGXCPU, -signal.SIGKILL):
        text = "Decoding the file took too long; convert it to WAV or FLAC, or split it."
    elif status == Outcome.TOO_MUCH_MEMORY:
        text = "Decoding the file took too much memory; convert it to WAV or FLAC."
    else:
        text = "The file could not be decoded as sound; send WAV, FLAC, MP3, M4A, OGG or WebM, undamaged."
    return InvalidRequest(text, param="file")


def _plain(given: int, limits: Limits) -> NDArray[np.float32] | None:
    """Without a process; None where it takes one."""
    samples = pcm(given, limits.most_seconds)
    os.lseek(given, 0, os.SEEK_SET)
    return None if samples is None else _floats(samples)


def _samples(made: int) -> NDArray[np.float32]:
    import numpy as np

    os.lseek(made, 0, os.SEEK_SET)
    with open(made, "rb", closefd=False) as file:
        return _floats(np.fromfile(file, "<i2"))


def _floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    import numpy as np

    return samples.astype(np.float32) / np.float32(32768)


__all__ = ["RATE", "Limits", "decode"]
