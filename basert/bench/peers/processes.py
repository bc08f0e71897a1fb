"""Memory and CPU time of a server with everything it has started. Knows processes, not what they are for."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil

INTERVAL = 1.0  # seconds: adding up a process' pages holds it up for milliseconds


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants, as they are now; empty when it is gone."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mib(pid: int) -> float:
    """Proportional set size: shared pages are counted once among those who share them."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / (1 << 20)


def cpu_seconds(pid: int) -> float:
    """User and system time of those who are alive."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class MemoryPeak:
    """`with MemoryPeak(pid) as peak:` … `peak.mib`: the most that was seen, looked at once a second."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, memory_mib(self._pid))
            if self._finished.wait(INTERVAL):
                return
