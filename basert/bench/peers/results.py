"""What a comparison found, as it goes into its JSON file. Knows numbers, not how they were come by."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import msgspec

from basert.bench.results import Machine, Spread


@dataclass(frozen=True)
class Metric:
    label: str
    higher_is_better: bool
    digits: int = 0


METRICS = {
    "sound_per_second": Metric("sound s/s", True, 1),
    "real_time_factor": Metric("real-time factor", False, 4),
    "word_errors": Metric("word errors, %", False, 1),
    "texts_per_second": Metric("texts/s", True),
    "latency_ms": Metric("latency, ms (median)", False, 1),
    "latency_p99_ms": Metric("latency, ms (p99)", False, 1),
    "inside_ms": Metric("without HTTP, ms (median)", False, 2),
    "session_ms": Metric("of it the runtime, ms", False, 2),
    "cosine_min": Metric("lowest cosine", True, 5),
    "cosine_mean": Metric("mean cosine", True, 5),
    "tokens_per_second": Metric("tokens/s", True),
    "first_token_ms": Metric("first token, ms (median)", False),
    "gap_ms": Metric("between tokens, ms (median)", False, 1),
    "gap_p99_ms": Metric("between tokens, ms (p99)", False, 1),
    "gap_p99_ratio": Metric("p99 while prompts arrive / median without", False, 1),
    "quiet_gap_ms": Metric("without, ms (median)", False, 1),
    "busy_gap_p99_ms": Metric("while they arrive, ms (p99)", False, 1),
    "ready_s": Metric("to ready, s", False, 2),
    "answered_s": Metric("to the first answer, s", False, 2),
    "memory_mib": Metric("memory, MiB", False),
}


class Contestant(msgspec.Struct):
    name: str
    versions: dict[str, str]
    command: list[str]
    environment: dict[str, str]  # what was set besides the usual
    notes: list[str]
    install_seconds: float  # when it was installed, which may be long ago


class Sample(msgspec.Struct, frozen=True):
    """One workload on one server, once."""

    round: int
    at: float  # seconds since the measuring began
    server: str
    workload: str
    values: dict[str, float]  # by the names of METRICS
    idle_cpu: dict[str, float] = {}  # CPU cores that each of the waiting servers took meanwhile


class Failure(msgspec.Struct, frozen=True):
    round: int
    server: str
    workload: str
    reason: str


class Comparison(msgspec.Struct):
    """Filled in as it goes; `complete` only at its end."""

    started: str
    command: list[str]
    machine: Machine
    model: str
    source: str
    bundle: str  # variant and digest
    settings: dict[str, float]  # threads, streams, context, repetitions
    workloads: dict[str, str]  # name -> what it is
    headlines: dict[str, str]  # workload -> the metric it is about
    method: list[str] = []  # of the discipline: what was asked, and of which texts
    contestants: list[Contestant] = []
    left_out: dict[str, str] = {}  # peer -> why
    samples: list[Sample] = []
    failures: list[Failure] = []
    skipped: list[str] = []
    complete: bool = False

    def spread(self, workload: str, server: str, metric: str) -> Spread | None:
        """None where nothing was measured."""
        found = self._by_round(workload, server, metric)
        return Spread.of(list(found.values())) if found else None

    def advantage(self, workload: str, one: str, other: str, metric: str) -> float | None:
        """How many times better `one` is: the median over the rounds that both have."""
        ours, theirs = (self._by_round(workload, server, metric) for server in (one, other))
        ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]]
        if not METRICS[metric].higher_is_better:
            ratios = [1 / ratio for ratio in ratios if ratio]
        return statistics.median(ratios) if ratios else None

    def _by_round(self, workload: str, server: str, metric: str) -> dict[int, float]:
        return {
            sample.round: sample.values[metric]
            for sample in self.samples
            if (sample.workload, sample.server) == (workload, server) and metric in sample.values
        }

    def metrics_of(self, workload: str) -> list[str]:
        """Those that any server has, in METRICS' order."""
        found = {name for sample in self.samples if sample.workload == workload for name in sample.values}
        return [name for name in METRICS if name in found]

    def busiest_idle(self) -> dict[str, float]:
        """The most CPU that each server took while it waited for its turn, in cores."""
        most: dict[str, float] = {}
        for sample in self.samples:
            for name, cores in sample.idle_cpu.items():
                most[name] = max(cores, most.get(name, 0.0))
        return most
