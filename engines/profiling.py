"""`python -m engines.profiling`: where a step's time goes, as JSON on standard output (basert.profile).

Every phase is run twice: in an engine as it is, for the time of a step and what of it was outside the graph;
and in one whose runtime keeps a profile, for the operators, which the profiler itself makes slower.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from basert import store
from basert.cpus import usable_cores
from basert.errors import BasertError
from basert.manifest import read_manifest
from basert.messages import Sampling
from basert.profile import Operator, Phase, Profile
from engines.driver import GREEDY, MORE, SETTLING, STEPS, Driver, Step
from engines.loading import EngineConfig
from engines.loading_decoder import LONGEST_CHUNK
from engines.trace import median_operators, read_runs

SAMPLED = Sampling(temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class Wanted:
    """rows: of the decode phases; context: tokens of each row before; threads: 0 for one per core."""

    bundle: Path
    rows: tuple[int, ...]
    context: int
    threads: int

    def config(self, profile: str = "") -> EngineConfig:
        slots, longest = max(self.rows), read_manifest(self.bundle).max_context
        return EngineConfig(
            self.bundle,
            slots=slots,
            max_context=min(longest, max(self.context + MORE, 2 * LONGEST_CHUNK) + SETTLING + STEPS),
            max_queue=slots,
            threads=self.threads,
            profile=profile,
            prefix_cache=False,  # every prompt is to be read, every step to be one token a row
            speculation=False,
        )


def profile(wanted: Wanted) -> Profile:
    """Raises BundleError for a bundle that cannot be profiled."""
    driver = Driver(wanted.config())
    phases = [_Decode(rows, driver.context(wanted.context)) for rows in wanted.rows]
    chunk = _chunk(wanted.bundle, driver.info.max_context)
    timed = [(driver.decode(*phase, GREEDY), driver.decode(*phase, SAMPLED)) for phase in phases]
    prefill, provider = driver.prefill(chunk), driver.info.provider
    del driver  # its weights, before the other engine's come
    *decodes, chunks = _operators(wanted, phases, chunk)
    found = [
        _phase("decode", phase.rows, 1, phase.context, greedy, sampled, operators)
        for phase, (greedy, sampled), operators in zip(phases, timed, decodes, strict=True)
    ]
    found.append(_phase("prefill", 1, chunk, chunk, prefill, None, chunks))
    return Profile(provider, wanted.threads or usable_cores(), found)


class _Decode(NamedTuple):
    rows: int
    context: int


def _operators(wanted: Wanted, phases: Sequence[_Decode], chunk: int) -> list[list[Operator]]:
    """Of each decode phase, and then of the prefill chunk: with the runtime's profiler on."""
    with tempfile.TemporaryDirectory(prefix="basert-") as folder:
        driver = Driver(wanted.config(profile=str(Path(folder, "trace"))))
        steps = [driver.decode(*phase, GREEDY) for phase in phases]
        steps.append(driver.prefill(chunk))
        runs = read_runs(driver.end())
    offset = len(runs) - driver.steps  # the goldens' runs, at load
    return [median_operators([runs[offset + step.number] for step in some]) for some in steps]


def _chunk(bundle: Path, max_context: int) -> int:
    """The longest chunk of which two, and a little more, fit."""
    buckets = (size for graph in read_manifest(bundle).graphs for size in graph.chunk_buckets)
    return max((size for size in buckets if 2 * size + 2 < max_context and size <= LONGEST_CHUNK), default=2)


def _phase(
    name: str,
    rows: int,
    chunk: int,
    context: int,
    steps: list[Step],
    sampled: list[Step] | None,
    operators: list[Operator],
) -> Phase:
    return Phase(
        name=name,
        rows=rows,
        chunk=chunk,
        context=context,
        step_seconds=statistics.median(step.seconds for step in steps),
        outside_seconds=statistics.median(step.outside for step in steps),
        sampled_outside_seconds=statistics.median(step.outside for step in sampled) if sampled else None,
        operators=operators,
    )


def parse(argv: list[str] | None) -> Wanted:
    parser = argparse.ArgumentParser(
        prog="python -m engines.profiling",
        description="Where a step of a bundle's engine spends its time (basert bench --profile runs this).",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the bundle's folder")
    add("--rows", type=int, nargs="+", default=[1, 8, 32], help="sequences that decode together, in turn")
    add("--context", type=int, default=128, help="tokens of each before [%(default)s]")
    add("--threads", type=int, default=0, help="compute threads [the physical cores]")
    args = parser.parse_args(argv)
    return Wanted(args.bundle, tuple(args.rows), args.context, args.threads)


def main(argv: list[str] | None = None) -> None:
    """Print a Profile. Exit status 1, with a sentence on standard error, when there is none."""
    wanted = parse(argv)
    try:
        with store.hold(wanted.bundle):
            found = profile(wanted)
    except BasertError as error:
        sys.exit(error.message)
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
