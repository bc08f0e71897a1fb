"""Log lines, in one format for supervisor, engines and HTTP workers. Knows no prompt and no key.

Engines and workers write to standard error, which is a pipe to the supervisor; only the supervisor writes to
the log file (or its own standard error), so only it opens that file again on SIGHUP. What a child prints
without this module (a native library's warning, the last words of a crash) becomes such a line there.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

_access = logging.getLogger("basert.access")
_TEXT_BEGINS = 4  # "2026-": digits, then a dash


class TextLines(logging.Formatter):
    """`2026-11-22T10:34:05.123 INFO engine smollm2[4711] loaded in 0.41 s`"""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)s {process}[%(process)d] %(message)s")
        self.datefmt = "%Y-%m-%dT%H:%M:%S"


class JsonLines(logging.Formatter):
    """One JSON object per line; what `extra={"fields": ...}` held is beside the rest."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._who = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "process": self._who,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Output(logging.StreamHandler[TextIO]):
    """Where the supervisor's and its children's lines go: a file that can be reopened, or standard error."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        super().__init__(self._open())

    def reopen(self) -> None:
        """After the file was moved away: go on in a new one."""
        if self._file is not None:
            old = self.setStream(self._open())
            if old is not None:
                old.close()

    def write(self, line: str) -> None:
        """A line that a child has formatted already."""
        with self.lock:  # type: ignore[union-attr]
            self.stream.write(line + "\n")
            self.flush()

    def _open(self) -> TextIO:
        return sys.stderr if self._file is None else self._file.open("a")


def setup(process: str, form: str = "text", level: str = "info", output: Output | None = None) -> None:
    """Send all loggers' lines to `output` (else standard error), as the process so named ("engine tiny")."""
    handler = output or Output(None)
    handler.setFormatter(JsonLines(process) if form == "json" else TextLines(process))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written must not stop what it logs


def is_formatted(line: str) -> bool:
    """Whether a child's line came from this module."""
    return line.startswith('{"time":') or (line[:_TEXT_BEGINS].isdigit() and line[_TEXT_BEGINS:5] == "-")


def access(method: str, path: str, status: int, milliseconds: float, tokens: int, request_id: str) -> None:
    """One line for one answered request."""
    if _access.isEnabledFor(logging.INFO):
        _access.info(
            "%s %s %d %.1f ms %d tokens %s",
            method,
            path,
            status,
            milliseconds,
            tokens,
            request_id,
            extra={
                "fields": {
                    "method": method,
                    "path": path,
                    "status": status,
                    "ms": round(milliseconds, 1),
                    "tokens": tokens,
                    "request_id": request_id,
                }
            },
        )


def silence_access() -> None:
    """--no-access-log."""
    _access.setLevel(logging.WARNING)
