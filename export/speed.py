"""How fast a variant's graph runs on this host: decode steps and a prefill, in alternation"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import geometric_mean

import msgspec
import numpy as np
from numpy.typing import NDArray

from basert.progress import Show
from export.runner import SlotRunner

CONTEXT = 256  # tokens in the cache of a row that decodes
PREFILL = 512  # tokens of a prompt, in one chunk
ROWS = 8
ROUNDS = 9  # what the median is taken of; a first one warms up
STEPS = 4  # decode steps a round, so that one of them counts about as much as a prefill


class Speed(msgspec.Struct, frozen=True):
    """Milliseconds, medians."""

    decode_1: float
    decode_8: float
    prefill: float

    def mean(self) -> float:
        """Geometric: a tenth less of any of the three counts the same."""
        return geometric_mean([self.decode_1, self.decode_8, self.prefill])

    def __str__(self) -> str:
        return f"{self.decode_1:.1f}/{self.decode_8:.1f}/{self.prefill:.0f} ms"


def measure_speeds(graphs: Mapping[str, Path], progress: Show, *, threads: int = 0) -> dict[str, Speed]:
    """By name, how fast the slot graphs in these folders run. All are open at once."""
    cases = {name: _cases(folder, threads) for name, folder in graphs.items()}
    seen: dict[str, list[list[float]]] = {name: [] for name in graphs}
    for done in range(ROUNDS + 1):
        progress(done, ROUNDS + 1)
        for name, runs in cases.items():
            times = [_milliseconds(run, count) for run, count in runs]
            if done:
                seen[name].append(times)
    return {name: Speed(*np.median(rounds, axis=0).tolist()) for name, rounds in seen.items()}


def _cases(folder: Path, threads: int) -> list[tuple[Callable[[], None], int]]:
    """What is timed, in the order of Speed's fields, and how often a round."""
    runner = SlotRunner(folder, slots=ROWS, max_context=2 * PREFILL, threads=threads)
    context = min(CONTEXT, runner.max_context - 1)
    return [
        (_run(runner, np.zeros((1, 1), np.int64), context), STEPS),
        (_run(runner, np.zeros((ROWS, 1), np.int64), context), STEPS),
        (_run(runner, np.zeros((1, min(PREFILL, runner.max_context)), np.int64), 0), 1),
    ]


def _run(runner: SlotRunner, ids: NDArray[np.int64], past: int) -> Callable[[], None]:
    """A step that answers the best token after each row, as greedy decoding asks for it."""
    rows, chunk = ids.shape
    last = [row * chunk + chunk - 1 for row in range(rows)]
    fetches = {"next_token": np.zeros(rows, np.int64)}
    return lambda: runner.run(0, ids, [past] * rows, last, fetches)


def _milliseconds(run: Callable[[], None], count: int) -> float:
    """The fastest of `count` runs: other work on the machine only ever adds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)
