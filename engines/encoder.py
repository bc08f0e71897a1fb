"""An encoder's engine: queue, runner and the thread of the graph put together. Knows messages, no sockets.

While the graph runs, requests are let in, and shortly before it is expected to end the next batch is packed
into the other buffers and lined up behind it. Answers leave while the next batch runs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from basert.messages import BucketStats, Encode, Failed, Submit, Vectors
from engines.base import BaseEngine, Publish, Reply
from engines.encoder_runner import Bound, EncoderRunner
from engines.inputs import Accepted, admit
from engines.packing import Batch, Queue, Request
from engines.stats import EncoderCounters
from engines.worker import Done, Worker

LEAD = 0.002  # seconds before a run's expected end at which the next batch is packed
ALONE = 0.02  # seconds that a run may take for which nothing else is received: a lone input's

_log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A batch on its way through the graph."""

    batch: Batch
    bound: Bound


class EncoderEngine(BaseEngine):
    def __init__(
        self,
        queue: Queue,
        runner: EncoderRunner,
        accepted: Accepted,
        max_queue: int,
        batch_wait: float,
        check: Callable[[], None],
        publish: Publish,
        wake: Callable[[], None],
    ) -> None:
        """max_queue: requests that may wait; batch_wait: seconds that an input may wait for company while
        nothing runs; check: raises when the runtime no longer answers as it should; wake: ends the main
        thread's wait for messages."""
        self._counters: EncoderCounters
        super().__init__(EncoderCounters(), publish)
        self._queue = queue
        self._runner = runner
        self._accepted = accepted
        self._max_queue = max_queue
        self._batch_wait = batch_wait
        self._check = check
        self._draining = False
        self._open: dict[tuple[int, int], Request] = {}
        self._runs: deque[Run] = deque()  # the one in the graph, and the one lined up behind it
        self._due = 0.0  # when the one in the graph should have ended
        self._since = 0.0  # when the engine had something to run, or took the last run's answers
        self._buckets = {bucket: BucketStats(*bucket) for bucket in queue.costs.buckets}
        self._worker: Worker[Run] = Worker(lambda run: run.bound.run(), wake)

    @property
    def busy(self) -> bool:
        return bool(self._open or self._runs)

    @property
    def patience(self) -> float | None:
        if len(self._runs) > 1 or not len(self._queue):
            return None  # the worker wakes us
        return max(0.0, self._lining_up() - time.monotonic())

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        self._draining = True

    def save(self) -> None:
        """Nothing of an encoder's work is of use to the next start."""

    def close(self) -> None:
        self._worker.close()

    def step(self) -> None:
        """Answer what has run, and line up what runs next.

        Raises whatever `check` raises when a run failed and the runtime is not to be trusted any more.
        """
        self._collect()
        if self._line_up(here=True):
            self._collect()

    def _collect(self) -> None:
        failed = False
        while (done := self._worker.done()) is not None:
            failed |= done.error is not None
            self._take(done, go_on=not failed)
        if failed:
            while self._runs:
                self._take(self._worker.wait(), go_on=False)
            self._check()

    def _take(self, done: Done[Run], go_on: bool) -> None:
        """A run is over. The graph is kept busy first, answers leave second."""
        run = self._runs.popleft()
        now = time.monotonic()
        self._counters.step_seconds += now - self._since
        self._counters.run_seconds += done.seconds
        self._since = now
        if self._runs:
            self._due = now + self._queue.costs.expected(self._runs[0].batch.bucket)
        elif go_on:
            self._line_up()
        if done.error is not None:
            _log.error("a run failed", exc_info=done.error)
            self._send(list(self._abandon(run.batch)))
        else:
            self._count(run.batch, done.seconds)
            self._send(list(self._answers(run)))

    def _lining_up(self) -> float:
        """When the next batch is to be packed, while inputs wait (time.monotonic)."""
        if self._runs:
            return self._due - LEAD
        if not self._batch_wait or len(self._queue) >= self._queue.costs.most_rows:
            return 0.0
        return self._queue.oldest + self._batch_wait

    def _line_up(self, here: bool = False) -> bool:
        """Have the next batch run, if it is time to. A request that has the engine to itself may run here and
        now: whether it did."""
        now = time.monotonic()
        if len(self._runs) > 1 or not len(self._queue) or now < self._lining_up():
            return False
        batch = self._queue.pop()
        run = Run(batch, self._runner.fill(batch.bucket, [entry.row for entry in batch.entries]))
        expected = self._queue.costs.expected(batch.bucket)
        here = here and not self._runs and expected <= ALONE and len(self._open) == 1 and not len(self._queue)
        if not self._runs:
            self._since, self._due = now, now + expected
        self._runs.append(run)
        self._begin(batch, now)
        (self._worker.run if here else self._worker.submit)(run)
        return here

    def _begin(self, batch: Batch, now: float) -> None:
        for request in {entry.request for entry in batch.entries if not entry.request.began}:
            request.began = True
            self._counters.requests_admitted += 1
            self._counters.queue_seconds.add(now - request.arrived)

    def _answers(self, run: Run) -> Iterator[Reply]:
        first = 0
        for request, entries in groupby(run.batch.entries, key=lambda entry: entry.request):
            indices = [entry.place for entry in entries]
            values = run.bound.values[first : first + len(indices)]
            first += len(indices)
            if request.ended:
                continue
            request.left -= len(indices)
            if not request.left:
                self._counters.requests_finished += 1
                self._end(request)
            data = values.astype("<f4", copy=False).tobytes()
            yield request.peer, Vectors(request.number, indices, data, last=not request.left)

    def _abandon(self, batch: Batch) -> Iterator[Reply]:
        for request in {entry.request: None for entry in batch.entries if not entry.request.ended}:
            self._counters.requests_failed += 1
            self._end(request)
            reason = "The engine failed at this request; its log says why."
            yield request.peer, Failed(request.number, "engine_failed", reason)

    def _count(self, batch: Batch, seconds: float) -> None:
        counters, bucket = self._counters, batch.bucket
        self._queue.costs.note(bucket, seconds)
        tokens = sum(entry.length for entry in batch.entries)
        counters.prompt_tokens += tokens
        counters.computed_tokens += bucket.size
        counters.padded_tokens += bucket.size - tokens
        counters.batch_size.add(len(batch.entries))
        for entry in batch.entries:
            counters.input_tokens.add(entry.length)
        known = self._buckets[bucket]
        self._buckets[bucket] = msgspec.structs.replace(
            known,
            runs=known.runs + 1,
            inputs=known.inputs + len(batch.entries),
            input_tokens=known.input_tokens + tokens,
            run_seconds=known.run_seconds + seconds,
        )

    def _submit(self, peer: int, message: Submit | Encode) -> Failed | None:
        if isinstance(message, Submit):
            return Failed(message.id, "invalid", "This model makes vectors; ask a decoder for text.")
        refusal = self._refusal(peer, message)
        admitted = refusal or admit(peer, message, self._accepted, time.monotonic())
        if isinstance(admitted, Failed):
            self._counters.requests_refused += 1
            return admitted
        self._open[admitted.key] = admitted
        self._queue.push(admitted)
        return None

    def _refusal(self, peer: int, message: Encode) -> Failed | None:
        queue, most = self._queue, self._max_queue + (not self._runs)
        if self._draining:
            return Failed(message.id, "draining", "This engine is stopping; try again.")
        if (peer, message.id) in self._open:
            return Failed(message.id, "invalid", f"Request {message.id} is running already.")
        if queue.requests >= most:
            return Failed(
                message.id, "queue_full", f"{queue.requests} requests are waiting; try again later."
            )
        if queue.tokens >= most * self._accepted.max_tokens:
            return Failed(message.id, "queue_full", f"{queue.tokens} tokens are waiting; try again later.")
        return None

    def _cancel(self, peer: int, number: int) -> None:
        if request := self._open.get((peer, number)):
            self._counters.requests_cancelled += 1
            self._end(request)

    def _leave(self, peer: int) -> None:
        for key in [key for key in self._open if key[0] == peer]:
            self._cancel(*key)

    def _end(self, request: Request) -> None:
        """What of it has not been packed never will be; nobody is told of the rest."""
        del self._open[request.key]
        request.ended = True
        self._queue.remove(request)

    def _gauges(self) -> dict[str, Any]:
        waiting = sum(1 for request in self._open.values() if not request.began)
        return {
            "running": len(self._open) - waiting,
            "waiting": waiting,
            "buckets": list(self._buckets.values()),
        }
