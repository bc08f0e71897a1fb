"""One model's engine: scheduler, runner and sampler put together. Knows messages, no sockets.

`step` is: admit, schedule, run, sample, publish.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from basert.messages import AnyMessage, Cancel, Drain, Failed, Message, Stats, StatsRequest, Submit
from engines.compiling import Compiling
from engines.runner import Runner
from engines.sampling import Sampler
from engines.scheduler import Reply, Scheduler
from engines.slots import Slots
from engines.stats import Counters, resident_bytes

COMPILING_POLL = 0.002  # seconds between two looks at grammars being compiled, while nothing else runs

Publish = Callable[[int, list[Message]], None]

_log = logging.getLogger(__name__)


class Engine:
    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        runner: Runner,
        counters: Counters,
        compiling: Compiling,
        check: Callable[[], None],
        publish: Publish,
        save: Callable[[], None],
    ) -> None:
        """check: raises when the runtime no longer answers as it should; publish: sends a peer one frame;
        save: writes what the next start can use."""
        self._slots = slots
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = Sampler(counters)
        self._counters = counters
        self._compiling = compiling
        self._check = check
        self._publish = publish
        self.save = save

    @property
    def busy(self) -> bool:
        return len(self._scheduler) + len(self._compiling) > 0

    @property
    def patience(self) -> float | None:
        """Seconds that may be waited for messages before the next step; None: for ever."""
        if len(self._scheduler):
            return 0
        return COMPILING_POLL if len(self._compiling) else None

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
                if refusal := self._submit(peer, message):
                    self._publish(peer, [refusal])
            case Cancel():
                self._compiling.cancel(peer, message.id)
                self._scheduler.cancel(peer, message.id)
            case StatsRequest():
                self._publish(peer, [self._stats(message.id)])
            case Drain():
                self.drain()
            case None:
                self._compiling.cancel(peer)
                self._scheduler.leave(peer)
            case _:
                _log.warning("peer %d sent a %s, which engines do not take", peer, type(message).__name__)

    def _submit(self, peer: int, message: Submit) -> Failed | None:
        if message.grammar is None or self.draining:
            return self._scheduler.submit(peer, message)
        return self._compiling.add(peer, message)

    def _take_compiled(self) -> None:
        """Let in the requests whose grammars are compiled."""
        for peer, submit, result in self._compiling.done():
            refusal = result if isinstance(result, Failed) else self._scheduler.submit(peer, submit, result)
            if refusal is not None:
                self._publish(peer, [refusal])

    def step(self) -> None:
        """Advance every sequence whose turn it is by one run of the graph.

        Raises whatever `check` raises when a run failed and the runtime is not to be trusted any more.
        """
        if len(self._compiling):
            self._take_compiled()
        started = time.perf_counter()
        batch = self._scheduler.next_batch()
        if batch is None:
            return
        ran = self._runner.run_seconds
        try:
            self._sampler.look_ahead()
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
            waiting=self._scheduler.waiting + len(self._compiling),
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
            constrained_tokens=counters.constrained_tokens,
            held_tokens=counters.held_tokens,
            mask_seconds=counters.mask_seconds,
            grammars_compiled=self._compiling.compiled,
            grammars_reused=self._compiling.reused,
            step_seconds=counters.step_seconds,
            run_seconds=self._runner.run_seconds,
            batch_size=counters.batch_size.snapshot(),
            queue_seconds=counters.queue_seconds.snapshot(),
            resident_bytes=resident_bytes(),
        )
