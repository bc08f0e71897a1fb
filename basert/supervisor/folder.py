"""The run folder: sockets, what workers are told, and kept responses, for this user and this server only.

A server holds a lock on its folder for as long as it lives, however it ends; a folder whose lock is free
belongs to a dead server and is removed by the next one. systemd-tmpfiles leaves locked folders alone, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from basert.errors import ConfigError

CONTROL = "control.sock"
CONFIG = "config.json"
METRICS = "metrics"  # a folder: the HTTP workers' counters, added up by whichever is scraped
KEYS = "keys.json"  # those in force: hashes, and what each may do; written by the supervisor, read by workers
QUOTAS = "quotas"  # what was used of the keys' limits; see basert.http.quotas
RESPONSES = "responses"  # a folder: what /v1/responses keeps, found by every HTTP worker
BUNDLES = "bundles"  # a folder: of each build that is served what HTTP workers read of it
_PREFIX = "basert-run-"
_MAX_SOCKET_PATH = 107  # bytes, in Linux
_LONGEST_NAME = "1000000-10000.sock"  # the millionth engine, restarted often


class RunFolder:
    """Made on creation (mode 0700), removed by `remove`."""

    def __init__(self, base: Path) -> None:
        self._check_length(base)
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_stale(base)
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
        except OSError as error:
            raise ConfigError(
                f"No run folder can be made in {base} ({error.strerror}); mend --run-dir."
            ) from None
        self._lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(base / (_PREFIX + secrets.token_hex(4)))  # only now can others see it: locked

    @classmethod
    def below(cls, run_dir: Path | None, environ: Mapping[str, str]) -> Self:
        """In `run_dir`, else where systemd or the session says, else in the folder for temporary files."""
        named = (
            run_dir or environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or environ.get("XDG_RUNTIME_DIR")
        )
        return cls(Path(named or tempfile.gettempdir()).absolute())

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def _check_length(self, base: Path) -> None:
        longest = base / (_PREFIX + "12345678") / _LONGEST_NAME
        if len(os.fsencode(longest)) > _MAX_SOCKET_PATH:
            raise ConfigError(
                f"The run folder {base} has too long a path for a socket; name a shorter --run-dir."
            )


def _remove_stale(base: Path) -> None:
    for folder in base.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # another server is quicker, or it is no folder
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)
