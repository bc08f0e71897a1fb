"""What free cache rows hold, kept in a file from one start of an engine to the next.

    header    MAGIC, u32 length, identity: bundle, layout, runtime, CPU, on which the bits depend
    record    u32 tokens, u32 checksum, then the body: ids (i32 each), each layer's keys and values

Records come in the order of their use, latest first, so that a file that was cut short holds the best of it.
The file is nothing to rely on: whatever is wrong with it, the engine starts without it and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engines.prefix import WIDTH, Prefixes
from engines.runner import Runner
from engines.sessions.instructions import integer_products

MAGIC = b"basert prefixes 1\n"
U32, RECORD = struct.Struct("<I"), struct.Struct("<II")
MOST_BYTES = 512 << 20
MOST_SECONDS = 3.0  # a supervisor waits five for the end of an engine

_log = logging.getLogger(__name__)


class PrefixFile:
    def __init__(self, path: Path, digest: str, prefixes: Prefixes, runner: Runner) -> None:
        """digest: the bundle's."""
        self._path = path
        self._prefixes = prefixes
        self._runner = runner
        self._layout = {
            name: (view.dtype, view.shape[0], view.shape[2]) for name, view in runner.cached(0, 1).items()
        }
        self._token_bytes = WIDTH + sum(kind.itemsize * n * m for kind, n, m in self._layout.values())
        self._identity = f"{digest} {_platform()} {runner.provider} {self._layout}".encode()

    def read(self) -> None:
        """Fill free rows from the file, as far as it is there and fits. All rows are free."""
        started, rows = time.perf_counter(), 0
        try:
            with self._path.open("rb") as file:
                if _identity(file) != self._identity:
                    _log.warning("%s is of another bundle or machine: starting without it", self._path)
                    return
                for rows, body in enumerate(self._bodies(file), 1):
                    self._restore(rows - 1, body)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.warning("%s is damaged (%s): starting with %d prompts of it", self._path, error, rows)
        tokens = sum(held.length for held in self._prefixes.held if held)
        _log.info("read %d cached tokens in %.2f s", tokens, time.perf_counter() - started)

    def write(self) -> None:
        """Write what the rows hold, which nobody owns. What cannot be written is lost; the log says so."""
        started = time.perf_counter()
        partial = self._path.with_name(f"{self._path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            partial.touch(0o600)  # what people asked is nobody else's business
            with partial.open("wb") as file:
                file.write(MAGIC + U32.pack(len(self._identity)) + self._identity)
                tokens = sum(self._write_row(file, row) for row in self._rows(started))
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            _log.warning("%s cannot be written: %s", self._path, error)
        else:
            _log.info("kept %d cached tokens in %.2f s", tokens, time.perf_counter() - started)

    def _rows(self, started: float) -> Iterator[int]:
        """Those to write, latest use first, within the limits of size and time."""
        room = MOST_BYTES
        held = [(held.used, held.length, row) for row, held in enumerate(self._prefixes.held) if held]
        for _, length, row in sorted(held, reverse=True):
            room -= length * self._token_bytes
            if room < 0 or time.perf_counter() - started > MOST_SECONDS:
                return
            yield row

    def _write_row(self, file: BinaryIO, row: int) -> int:
        held = self._prefixes.held[row]
        assert held is not None
        if held.torn:
            self._runner.mend(row)
            held.torn = False
        views = self._runner.cached(row, held.length)
        body = [held.ids, *(np.ascontiguousarray(views[name]).tobytes() for name in self._layout)]
        checksum = 0
        for part in body:
            checksum = zlib.crc32(part, checksum)
        file.write(RECORD.pack(held.length, checksum))
        file.writelines(body)
        return held.length

    def _bodies(self, file: BinaryIO) -> Iterator[bytes]:
        """Raises ValueError at what no engine has written."""
        size = os.fstat(file.fileno()).st_size
        for _ in self._prefixes.held:
            head = file.read(RECORD.size)
            if not head:
                return
            if len(head) < RECORD.size:
                raise ValueError("it is cut off")
            tokens, checksum = RECORD.unpack(head)
            if tokens * self._token_bytes > size - file.tell():
                raise ValueError("it is cut off")
            body = file.read(tokens * self._token_bytes)
            if zlib.crc32(body) != checksum:
                raise ValueError("a checksum is wrong")
            yield body

    def _restore(self, row: int, body: bytes) -> None:
        """A prompt that is longer than this engine's context is cut."""
        length = len(body) // self._token_bytes
        offset, kept = length * WIDTH, length
        views = self._runner.cached(row, length)
        for name, (kind, heads, size) in self._layout.items():
            array = np.frombuffer(body, kind, heads * length * size, offset).reshape(heads, length, size)
            kept = views[name].shape[1]
            views[name][...] = array[:, :kept]
            offset += array.nbytes
        self._prefixes.restore(row, body[: kept * WIDTH], len(self._prefixes.held) - row)


def _identity(file: BinaryIO) -> bytes:
    """Raises ValueError when the file does not begin as these files do."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it does not begin as such a file does")
    length = file.read(U32.size)
    return file.read(U32.unpack(length)[0]) if len(length) == U32.size else b""


def _platform() -> str:
    """What else the last bits of keys and values depend on."""
    versions = []
    for package in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return f"{', '.join(versions)} {integer_products()}"
