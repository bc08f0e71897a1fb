"""`basert bench --profile`: the engine room's profiler as a process of its own, and its answer as tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from basert.bench.tables import table
from basert.errors import BundleError
from basert.profile import Phase, Profile

ROWS = (1, 8, 32)


def profile(bundle: Path, rows: Sequence[int], context: int, threads: int | None) -> Profile:
    """Where steps of `rows` sequences with `context` tokens each, and a chunk of a prompt, spend their time.

    Raises BundleError with what the profiler says.
    """
    command = [sys.executable, "-m", "engines.profiling", "--bundle", str(bundle), "--context", str(context)]
    command += ["--rows", *map(str, rows), "--threads", str(threads or 0)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BundleError(said or f"The profiler of {bundle} ended with status {done.returncode}.")
    return msgspec.json.decode(done.stdout, type=Profile)


def render(found: Profile, heading: str) -> str:
    """A table for each phase."""
    return "\n\n".join([f"{heading}\n{found.provider}, {found.threads} threads", *map(_phase, found.phases)])


def _phase(phase: Phase) -> str:
    total = sum(one.microseconds for one in phase.operators)
    rows = [
        (one.name, f"{one.calls}", f"{one.microseconds:,.0f}", f"{one.microseconds / total:.1%}")
        for one in phase.operators
    ]
    return table(
        _title(phase), ("operator", "calls", "µs", "share"), [*rows, ("all", "", f"{total:,.0f}", "")]
    )


def _title(phase: Phase) -> str:
    rows = "1 row" if phase.rows == 1 else f"{phase.rows} rows"
    what = f"Decode, {rows}" if phase.name == "decode" else f"Prefill, a chunk of {phase.chunk}"
    outside = f"{_share(phase.outside_seconds, phase.step_seconds)} greedy"
    if phase.sampled_outside_seconds is not None:
        inside = phase.step_seconds - phase.outside_seconds
        outside += (
            f", {_share(phase.sampled_outside_seconds, inside + phase.sampled_outside_seconds)} sampled"
        )
    return (
        f"{what}, {phase.context} tokens before: {1e3 * phase.step_seconds:.2f} ms a step, "
        f"outside the graph {outside}"
    )


def _share(seconds: float, step: float) -> str:
    return f"{1e3 * seconds:.2f} ms ({seconds / step:.1%})"
