"""Bytes kept for a while under names of our own: files in a folder that all HTTP workers of a server share.

Each belongs to whoever sent it, and nobody else finds it. Knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from pathlib import Path

SWEEP_SECONDS = 60.0
LEAST_BYTES = 4096  # what a file costs, however small it is

_NAME = re.compile(r"[a-z]+_[0-9a-f]{48}")
_log = logging.getLogger(__name__)


def new_name(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


class Kept:
    """One worker's view of the folder. What is too old is not found, and swept away by and by."""

    def __init__(self, folder: Path | None, seconds: float, most_bytes: int) -> None:
        """folder: made when first needed; without one, or with 0 seconds, nothing is kept."""
        self._folder = folder if seconds > 0 else None
        self._seconds = seconds
        self._most = most_bytes
        self._written = 0  # since the last sweep
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything is kept at all."""
        return self._folder is not None

    def put(self, name: str, owner: str, body: bytes) -> bool:
        """Whether it could be kept. A disk that is full fails no request."""
        if self._folder is None or len(body) > self._most:
            return False
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _write(self._folder / name, owner.encode() + b"\n" + body)
        except OSError as error:
            _log.warning("a response is not kept: %s", error)
            return False
        self._written += max(len(body), LEAST_BYTES)
        self._sweep_in(SWEEP_SECONDS if self._written < self._most / 64 else 0)
        return True

    def get(self, name: str, owner: str) -> bytes | None:
        path = self._path(name)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                fresh = time.time() - os.fstat(file.fileno()).st_mtime < self._seconds
                whose, body = file.readline().rstrip(b"\n"), file.read()
        except FileNotFoundError:
            return None
        return body if fresh and hmac.compare_digest(whose, owner.encode()) else None

    def remove(self, name: str, owner: str) -> bool:
        """Whether it was there."""
        path = self._path(name)
        if path is None or self.get(name, owner) is None:
            return False
        path.unlink(missing_ok=True)
        return True

    def _path(self, name: str) -> Path | None:
        """Only names of our own making become paths."""
        return self._folder / name if self._folder is not None and _NAME.fullmatch(name) else None

    def _sweep_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._begin_sweep)

    def _begin_sweep(self) -> None:
        self._timer, self._written = None, 0
        asyncio.get_running_loop().run_in_executor(None, self.sweep).add_done_callback(self._swept)

    def _swept(self, done: asyncio.Future[bool]) -> None:
        if not done.cancelled() and done.exception() is None and done.result():
            self._sweep_in(SWEEP_SECONDS)

    def sweep(self) -> bool:
        """Remove what is too old, then the oldest of what is too much. Answers whether anything is left."""
        assert self._folder is not None
        files = sorted(_files(self._folder))
        total = sum(size for _, size, _ in files)
        oldest = time.time() - self._seconds
        for changed, size, path in files:
            if changed > oldest and total <= self._most:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total > 0


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and for this user only."""
    handle, made = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(made).rename(path)
    except OSError:
        Path(made).unlink(missing_ok=True)
        raise


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Each with its age and what it costs; another worker may remove any of them meanwhile."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.append((stat.st_mtime, max(stat.st_size, LEAST_BYTES), path))
    return found
