"""WAV files that hold what is wanted already: 16 bit, mono, at 16 kHz. Reads them; decodes nothing.

"RIFF" u32 size "WAVE"  chunk ...
chunk   name of four bytes, u32 size, the bytes, one more if they are odd
"fmt "  u16 kind (1: PCM), u16 channels, u32 rate, u32 bytes a second, u16 bytes a frame, u16 bits
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

from basert.audio.decoding import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WANTED = (1, 1, RATE, 2 * RATE, 2, 16)
_UNKNOWN = (0, 0xFFFFFFFF)  # what a size is when its file was written on the fly
_MOST_CHUNKS = 16


def pcm(descriptor: int, most_seconds: float) -> NDArray[np.int16] | None:
    """All samples [n]; None for any other file, and for what is longer: somebody else is to look at that.

    A file that breaks off gives what it has. Where `descriptor` stands afterwards is not said.
    """
    import numpy as np

    with open(descriptor, "rb", closefd=False) as file:
        size = _data(file)
        there = os.fstat(descriptor).st_size - file.tell()
        count = min(size, there) // 2
        if not 0 < count <= most_seconds * RATE:
            return None
        return np.fromfile(file, "<i2", count)


def _data(file: BinaryIO) -> int:
    """Bytes of the samples, where the file then stands; 0 if it is another kind of file."""
    head, told = file.read(12), None
    if (head[:4], head[8:]) != (b"RIFF", b"WAVE"):
        return 0
    for _ in range(_MOST_CHUNKS):
        name, size = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if name == b"data":
            return size if told == _WANTED and size not in _UNKNOWN else 0
        if name == b"fmt ":
            told = struct.unpack("<HHIIHH", file.read(16).ljust(16, b"\0"))
            size -= min(size, 16)
        file.seek(size + size % 2, os.SEEK_CUR)
    return 0
