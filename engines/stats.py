"""The engine's counters since it started; `snapshot` is their wire form."""

from __future__ import annotations

import bisect
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basert.messages import Histogram

if TYPE_CHECKING:
    from engines.batch import Batch

LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
LENGTH_BOUNDS = tuple(float(length) for length in LENGTHS)
BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SECONDS_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Observations:
    """A histogram that is being filled."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> Histogram:
        cumulative, total = [], 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return Histogram(list(self._bounds), cumulative, self._sum)


@dataclass(slots=True)
class Counters:
    """Named as in `basert.messages.Stats`."""

    requests_admitted: int = 0
    requests_finished: int = 0
    requests_cancelled: int = 0
    requests_refused: int = 0
    requests_failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    decode_steps: int = 0
    prefill_steps: int = 0
    padded_tokens: int = 0
    computed_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    constrained_tokens: int = 0
    held_tokens: int = 0
    windows_heard: int = 0
    windows_reused: int = 0
    mask_seconds: float = 0.0
    step_seconds: float = 0.0
    batch_size: Observations = field(default_factory=lambda: Observations(BATCH_BOUNDS))
    queue_seconds: Observations = field(default_factory=lambda: Observations(SECONDS_BOUNDS))

    def ran(self, batch: Batch) -> None:
        """A decoder's batch went through its graph."""
        self.computed_tokens += batch.computed
        self.padded_tokens += batch.padded
        if batch.sound is not None:
            self.windows_heard += 1
        elif batch.chunk > 1 and not batch.verifies:
            self.prefill_steps += 1
        else:
            self.decode_steps += 1
            self.batch_size.add(sum(1 for row in batch.rows if row.sequence is not None))

    def told(self) -> dict[str, Any]:
        """Their wire form by name, as arguments of Stats."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: value.snapshot() if isinstance(value, Observations) else value
            for name, value in values.items()
        }


@dataclass(slots=True)
class EncoderCounters(Counters):
    """Those that an encoder has besides."""

    run_seconds: float = 0.0
    input_tokens: Observations = field(default_factory=lambda: Observations(LENGTH_BOUNDS))


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
