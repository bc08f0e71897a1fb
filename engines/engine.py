"""One model's engine: scheduler, runner and sampler put together. Knows messages, no sockets.

`step` is: admit, schedule, run, sample, publish.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from basert.messages import AnyMessage, Cancel, Drain, Message, Stats, StatsRequest, Submit
from engines.runner import Runner
from engines.sampling import Sampler
from engines.scheduler import Reply, Scheduler
from engines.slots import Slots
from engines.stats import Counters, resident_bytes

Publish = Callable[[int, list[Message]], None]

_log = logging.getLogger(__name__)


class Engine:
    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        runner: Runner,
        counters: Counters,
        check: Callable[[], None],
        publish: Publish,
        save: Callable[[], None],
    ) -> None:
        """check: raises when the runtime no longer answers as it should; publish: sends a peer one frame;
        save: writes what the next start can use."""
        self._slots = slots
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = Sampler()
        self._counters = counters
        self._check = check
        self._publish = publish
        self.save = save

    @property
    def busy(self) -> bool:
        return len(self._scheduler) > 0

    @property
    def draining(self) -> bool:
        return self._scheduler.draining

    def drain(self) -> None:
        """Refuse what comes from now on; what is here goes on."""
        self._scheduler.draining = True

    def end_profile(self) -> Path:
        """The file with the runtime's profile of every run so far. Raises BundleError when it keeps none."""
        return self._runner.end_profile()

    def receive(self, peer: int, message: AnyMessage | None) -> None:
        """Take in a peer's message, or (None) its loss."""
        match message:
            case Submit():
                if refusal := self._scheduler.submit(peer, message):
                    self._publish(peer, [refusal])
            case Cancel():
                self._scheduler.cancel(peer, message.id)
            case StatsRequest():
                self._publish(peer, [self._stats(message.id)])
            case Drain():
                self.drain()
            case None:
                self._scheduler.leave(peer)
            case _:
                _log.warning("peer %d sent a %s, which engines do not take", peer, type(message).__name__)

    def step(self) -> None:
        """Advance every sequence whose turn it is by one run of the graph.

        Raises whatever `check` raises when a run failed and the runtime is not to be trusted any more.
        """
        started = time.perf_counter()
        batch = self._scheduler.next_batch()
        if batch is None:
            return
        ran = self._runner.run_seconds
        try:
            output = self._runner.run(batch)
            samples = self._sampler.sample(batch, output)
        except Exception:
            _log.exception("a step failed")
            self._send(self._scheduler.abandon(batch, "The engine failed at this request; its log says why."))
            self._check()
        else:
            self._scheduler.note(batch, self._runner.run_seconds - ran)
            self._send(self._scheduler.apply(batch, samples))
        self._counters.step_seconds += time.perf_counter() - started

    def _send(self, replies: list[Reply]) -> None:
        frames: defaultdict[int, list[Message]] = defaultdict(list)
        for peer, message in replies:
            frames[peer].append(message)
        for peer, messages in frames.items():
            self._publish(peer, messages)

    def _stats(self, number: int) -> Stats:
        counters = self._counters
        return Stats(
            id=number,
            running=self._slots.used,
            waiting=self._scheduler.waiting,
            slots=len(self._slots.owners),
            slots_used=self._slots.used,
            kv_tokens=self._scheduler.kv_tokens(),
            requests_admitted=counters.requests_admitted,
            requests_finished=counters.requests_finished,
            requests_cancelled=counters.requests_cancelled,
            requests_refused=counters.requests_refused,
            requests_failed=counters.requests_failed,
            prompt_tokens=counters.prompt_tokens,
            generated_tokens=counters.generated_tokens,
            cached_tokens=counters.cached_tokens,
            prefix_queries=counters.prefix_queries,
            prefix_hits=counters.prefix_hits,
            prefix_evictions=self._slots.prefixes.evicted,
            retained_tokens=self._slots.retained_tokens,
            decode_steps=counters.decode_steps,
            prefill_steps=counters.prefill_steps,
            padded_tokens=counters.padded_tokens,
            computed_tokens=counters.computed_tokens,
            drafted_tokens=counters.drafted_tokens,
            accepted_tokens=counters.accepted_tokens,
            step_seconds=counters.step_seconds,
            run_seconds=self._runner.run_seconds,
            batch_size=counters.batch_size.snapshot(),
            queue_seconds=counters.queue_seconds.snapshot(),
            resident_bytes=resident_bytes(),
        )
