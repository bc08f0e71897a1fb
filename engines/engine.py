"""A decoder's engine: scheduler, runner and sampler put together. Knows messages, no sockets.

`step` is: admit, schedule, run, sample, publish.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basert.messages import AdapterInfo, Encode, Failed, LoadAdapter, Submit, UnloadAdapter
from engines.adapters import Adapters
from engines.base import BaseEngine, Publish
from engines.compiling import Compiling
from engines.runner import Runner
from engines.sampling import Sampler
from engines.scheduler import Scheduler
from engines.slots import Slots
from engines.stats import Counters

COMPILING_POLL = 0.002  # seconds between two looks at grammars being compiled, while nothing else runs

_log = logging.getLogger(__name__)


class Engine(BaseEngine):
    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        runner: Runner,
        counters: Counters,
        sampler: Sampler,
        compiling: Compiling,
        check: Callable[[], None],
        publish: Publish,
        save: Callable[[], None],
        adapters: Adapters | None = None,
    ) -> None:
        """check: raises when the runtime no longer answers as it should; save: writes what the next start
        can use. adapters: None of a model that takes none."""
        super().__init__(counters, publish)
        self._slots = slots
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = sampler
        self._compiling = compiling
        self._check = check
        self._save = save
        self._adapters = adapters

    @property
    def busy(self) -> bool:
        return len(self._scheduler) + len(self._compiling) > 0

    @property
    def patience(self) -> float | None:
        if len(self._scheduler):
            return 0
        return COMPILING_POLL if len(self._compiling) else None

    @property
    def adapters(self) -> list[AdapterInfo]:
        return self._adapters.loaded if self._adapters is not None else []

    @property
    def draining(self) -> bool:
        return self._scheduler.draining

    def drain(self) -> None:
        self._scheduler.draining = True

    def save(self) -> None:
        self._save()

    def close(self) -> None:
        """A step runs in the main thread: there is nothing to wait for."""

    def end_profile(self) -> Path:
        """The file with the runtime's profile of every run so far. Raises BundleError when it keeps none."""
        return self._runner.end_profile()

    def _submit(self, peer: int, message: Submit | Encode) -> Failed | None:
        if isinstance(message, Encode):
            return Failed(message.id, "invalid", "This model generates text; ask an encoder for vectors.")
        if message.grammar is None or message.sound is not None or self.draining:
            return self._scheduler.submit(peer, message)
        return self._compiling.add(peer, message)

    def _adapt(self, peer: int, message: LoadAdapter | UnloadAdapter) -> None:
        if self._adapters is None:
            super()._adapt(peer, message)
        elif isinstance(message, LoadAdapter):
            self._adapters.load(peer, message)
        else:
            self._adapters.unload(peer, message)

    def _cancel(self, peer: int, number: int) -> None:
        self._compiling.cancel(peer, number)
        self._scheduler.cancel(peer, number)

    def _leave(self, peer: int) -> None:
        self._compiling.cancel(peer)
        self._scheduler.leave(peer)

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
        if self._adapters is not None:
            self._send(self._adapters.done())
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

    def _gauges(self) -> dict[str, Any]:
        return {
            "running": self._slots.used,
            "waiting": self._scheduler.waiting + len(self._compiling),
            "slots": len(self._slots.owners),
            "slots_used": self._slots.used,
            "kv_tokens": self._scheduler.kv_tokens(),
            "prefix_evictions": self._slots.prefixes.evicted,
            "retained_tokens": self._slots.retained_tokens,
            "grammars_compiled": self._compiling.compiled,
            "grammars_reused": self._compiling.reused,
            "run_seconds": self._runner.run_seconds,
            "listen_seconds": self._runner.listen_seconds,
        }
