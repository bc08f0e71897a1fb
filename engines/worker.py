"""A thread that runs one job after the other, so that the main thread can do something else meanwhile.

Worth it only where a job gives up the interpreter lock, as runs of a graph do.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

# Seconds after which a thread that computes in Python is asked for the interpreter lock: a run that is over
# waits for it before the next begins.
SWITCH_INTERVAL = 0.0005

Job = TypeVar("Job")


class Done(NamedTuple, Generic[Job]):
    job: Job
    seconds: float  # that it ran
    error: Exception | None


class Worker(Generic[Job]):
    def __init__(self, run: Callable[[Job], None], wake: Callable[[], None]) -> None:
        """wake: called in the thread after each job."""
        self._run = run
        self._wake = wake
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: deque[Done[Job]] = deque()
        self._ended = threading.Semaphore(0)  # counts jobs that are over and not yet taken
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread = threading.Thread(target=self._serve, name="graph", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Have a job run after those that were submitted before."""
        self._jobs.put(job)

    def run(self, job: Job) -> None:
        """Run a job here and now: for the caller it takes less time than to wake two threads, one after the
        other. Only while none that was submitted runs."""
        self._do(job)

    def done(self) -> Done[Job] | None:
        """The next job that is over, if one is."""
        return self._done.popleft() if self._ended.acquire(blocking=False) else None

    def wait(self) -> Done[Job]:
        """The next job that is over, when it is. Only while one has been submitted and not been taken."""
        self._ended.acquire()
        return self._done.popleft()

    def close(self) -> None:
        """Let what was submitted run, then end."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(job)
            self._wake()

    def _do(self, job: Job) -> None:
        error = None
        started = time.perf_counter()
        try:
            self._run(job)
        except Exception as raised:
            error = raised
        self._done.append(Done(job, time.perf_counter() - started, error))
        self._ended.release()
