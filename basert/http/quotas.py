"""Token buckets in one file that all HTTP workers of a server share: what each name has used lately.

A bucket of N a minute holds N, and what was taken flows back evenly. The file is a hash table mapped into
memory: sets of eight entries, each set with a lock of its own that the kernel frees with its process. An
entry from which nothing is missing any more says nothing, so it needs no clearing up: it is overwritten.

    page    16 random bytes, which names are hashed with: nobody can choose names that share a set
    entry   16 bytes, the name's hash; spent, at that time in seconds, flowing back per second: float64 each
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SETS = 2048
WAYS = 8
MINUTE = 60.0

_PAGE = 4096
_SALT = 16
_ENTRY = struct.Struct("=16sddd")
_SIZE = _PAGE + SETS * WAYS * _ENTRY.size
_SALT_LOCK = SETS  # the lock beyond those of the sets


class Level(NamedTuple):
    """A bucket after something was, or was not, taken from it."""

    taken: bool
    left: float  # less than nothing after more was used than had been reserved
    wait: float  # seconds until the amount could be taken
    reset: float  # seconds until the bucket is full


class Quotas:
    """One process's view of the file; blocks for microseconds. Only for the thread of the event loop: a
    process's locks do not hold its own threads apart."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """path: made if it is not there; without one the buckets are this process's own. Raises OSError.

        clock: seconds, the same for all processes.
        """
        self._clock = clock
        if path is None:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._salt = self._prepared()
        self._map = mmap.mmap(self._file, _SIZE)

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def take(self, name: str, amount: float, limit: float, *, anyway: bool = False) -> Level:
        """Take an amount, if it is there. limit: what flows back in a minute, and the most that it holds.

        anyway: take it though it is not there, or give back (an amount below 0).
        """
        hashed = hashlib.blake2b(name.encode(), digest_size=16, key=self._salt).digest()
        number = int.from_bytes(hashed[:4], "little") % SETS
        with self._locked(number):
            now = self._clock()
            place, spent = self._find(number, hashed, now)
            rate = limit / MINUTE
            taken = anyway or spent + amount <= limit
            if taken and amount:
                spent = max(0.0, spent + amount)
                self._write(place, hashed, spent, now, rate)
        lacking = 0.0 if taken else max(0.0, spent + amount - limit)
        return Level(taken, limit - spent, lacking / rate, spent / rate)

    def _find(self, number: int, hashed: bytes, now: float) -> tuple[int, float]:
        """Where the entry is, or may be written, and what is missing from its bucket now."""
        first = _PAGE + number * WAYS * _ENTRY.size
        freest, soonest = first, float("inf")
        for place in range(first, first + WAYS * _ENTRY.size, _ENTRY.size):
            name, spent, at, rate = _ENTRY.unpack_from(self._map, place)
            missing = max(0.0, spent - (now - at) * rate)
            if name == hashed:
                return place, missing
            full_in = missing / rate if rate else 0.0
            if full_in < soonest:
                freest, soonest = place, full_in
        return freest, 0.0

    def _write(self, place: int, hashed: bytes, spent: float, at: float, rate: float) -> None:
        _ENTRY.pack_into(self._map, place, hashed, spent, at, rate)

    @contextlib.contextmanager
    def _locked(self, number: int) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def _prepared(self) -> bytes:
        """Whoever comes first makes the file; returns its salt."""
        with self._locked(_SALT_LOCK):
            if os.fstat(self._file).st_size < _SIZE:
                os.pwrite(self._file, os.urandom(_SALT), 0)
                os.posix_fallocate(self._file, 0, _SIZE)  # or a full disk would be met in the map, by SIGBUS
            return os.pread(self._file, _SALT, 0)
