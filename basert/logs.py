"""Log lines, in one format for supervisor, engines and HTTP workers. Knows no prompt and no key.

Engines and workers write to standard error, which is a pipe to the supervisor; only the supervisor writes to
the log file (or its own standard error), so only it opens that file again on SIGHUP. What a child prints
without this module (a native library's warning, the last words of a crash) becomes such a line there.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

_foreign = logging.getLogger("basert.foreign")


class TextLines(logging.Formatter):
    """`2026-11-22T10:34:05.123 INFO engine smollm2[4711] loaded in 0.41 s`"""

    def __init__(self, process: str) -> None:
        line = "%(asctime)s.%(msecs)03d %(levelname)s %(who)s[%(process)d] %(message)s"
        super().__init__(line, "%Y-%m-%dT%H:%M:%S", defaults={"who": process})


class JsonLines(logging.Formatter):
    """One JSON object per line; what `extra={"fields": ...}` held is beside the rest. Times are UTC."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._who = process

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": getattr(record, "who", self._who),
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Output(logging.StreamHandler[TextIO]):
    """Where lines go: standard error, or a file that can be opened again."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        super().__init__(self._open())

    def reopen(self) -> None:
        """After the file was moved away: go on in a new one. Raises OSError, and goes on in the old one."""
        if self._file is not None:
            old, self.stream = self.stream, self._open()
            with contextlib.suppress(OSError):  # what a full disk did not take, it will not take now
                old.close()

    def relay(self, who: str, pid: int, line: str) -> bool:
        """A child's line: as it is if this module made it (True), else as a warning of that process."""
        if line.startswith('{"time":') or (line[:4].isdigit() and line[4:5] == "-"):
            with contextlib.suppress(OSError):  # the child would wait for ever for a reader that gave up
                self.stream.write(line + self.terminator)
                self.flush()
            return True
        fields = {"levelno": logging.WARNING, "levelname": "WARNING", "who": who, "process": pid}
        _foreign.handle(logging.makeLogRecord({"name": _foreign.name, "msg": line, **fields}))
        return False

    def close(self) -> None:
        super().close()
        if self._file is not None:
            self.stream.close()

    def _open(self) -> TextIO:
        return sys.stderr if self._file is None else self._file.open("a")


def setup(process: str, form: str = "text", level: str = "info", output: Output | None = None) -> None:
    """Send all loggers' lines to `output` (standard error), as the process so named ("engine tiny").

    form: "text" or "json"; level: "debug", "info", "warning" or "error".
    """
    handler = output or Output()
    handler.setFormatter(JsonLines(process) if form == "json" else TextLines(process))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written must not stop what it logs
