"""The thread of the graph: jobs in order, one at a time, each reported once."""

from __future__ import annotations

import threading

import pytest

from engines.worker import Worker


def test_jobs_run_in_order_in_another_thread_and_wake_after_each() -> None:
    ran: list[tuple[int, bool]] = []
    woken = threading.Semaphore(0)
    main = threading.current_thread()
    worker: Worker[int] = Worker(
        lambda job: ran.append((job, threading.current_thread() is main)), lambda: woken.release()
    )
    for job in range(1, 4):
        worker.submit(job)
    assert [worker.wait().job for _ in range(3)] == [1, 2, 3]
    assert all(woken.acquire(timeout=60) for _ in range(3))
    worker.run(4)
    done = worker.done()
    assert done is not None
    assert (done.job, done.error) == (4, None)
    assert worker.done() is None
    assert ran == [(1, False), (2, False), (3, False), (4, True)]
    assert not woken.acquire(blocking=False)  # who ran it knows
    worker.close()


def test_a_job_that_raises_is_told_and_the_next_runs() -> None:
    def run(job: int) -> None:
        if job == 1:
            raise ValueError("one")

    worker: Worker[int] = Worker(run, lambda: None)
    worker.submit(1)
    worker.submit(2)
    first, second = worker.wait(), worker.wait()
    assert isinstance(first.error, ValueError)
    assert (second.job, second.error) == (2, None)
    worker.close()


def test_closing_lets_what_was_submitted_run() -> None:
    going = threading.Event()
    ran: list[int] = []

    def run(job: int) -> None:
        going.wait()
        ran.append(job)

    worker: Worker[int] = Worker(run, lambda: None)
    worker.submit(1)
    worker.submit(2)
    threading.Timer(0, going.set).start()
    worker.close()
    assert ran == [1, 2]


@pytest.mark.parametrize("count", [200])
def test_no_job_is_lost_between_two_threads(count: int) -> None:
    worker: Worker[int] = Worker(lambda job: None, lambda: None)
    found = []
    for job in range(count):
        worker.submit(job)
        if done := worker.done():
            found.append(done.job)
    while len(found) < count:
        found.append(worker.wait().job)
    assert found == list(range(count))
    worker.close()
