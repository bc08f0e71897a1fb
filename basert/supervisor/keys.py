"""The API keys in force: read from the key file, and lying in the run folder for the HTTP workers.

So a worker that starts while the file is broken, or being written, has the keys that all others have. Knows
files, no key and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from basert import keys, settings
from basert.config import ServeConfig
from basert.errors import ConfigError
from basert.supervisor.folder import KEYS

LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class KeysInForce:
    """`changed` is called after other keys were put in force."""

    def __init__(self, config: ServeConfig, folder: Path, changed: Callable[[], None]) -> None:
        self._config = config
        self._place = folder / KEYS
        self._changed = changed
        self._seen: tuple[int, ...] | None = None  # the file as it was when it was read last

    def read(self) -> None:
        """Put in force what the file says now. Raises ConfigError, OSError; then the old keys stay."""
        self._seen = self._state()
        raw = keys.to_json(self._config.read_keys())
        new = self._place.with_suffix(".new")
        new.write_bytes(raw)
        new.rename(self._place)  # workers see the one or the other
        self._changed()

    async def watch(self) -> None:
        """Read the file when it has changed, once it is left alone: who writes it may not be done yet."""
        before = self._seen
        while self._config.api_key_file is not None:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._state()
            if now != self._seen and now == before:
                self._read_again()
            before = now

    def _read_again(self) -> None:
        try:
            self.read()
            _log.info("the API keys were read again: %s has changed", self._config.api_key_file)
        except ConfigError as error:
            _log.error("the API keys stay as they were: %s", error.message)
        except OSError as error:
            _log.error("the API keys stay as they were: %s", settings.reason(error))

    def _state(self) -> tuple[int, ...] | None:
        """Differs after every change; None: there is no file."""
        file = self._config.api_key_file
        try:
            found = file.stat() if file is not None else None
        except OSError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found else None
