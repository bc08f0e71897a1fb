"""What `python -m engines.profiling` found out, as it tells `basert bench`. Knows numbers, no runtime."""

from __future__ import annotations

import msgspec


class Operator(msgspec.Struct, frozen=True):
    """One type of operator in a step of a phase, the median over its steps."""

    name: str
    calls: int
    microseconds: float  # its own; what runs inside a branch or a loop counts there


class Phase(msgspec.Struct, frozen=True):
    """One kind of step. Seconds are of whole steps without the profiler, medians."""

    name: str  # "decode" | "prefill"
    rows: int
    chunk: int  # tokens of each row
    context: int  # tokens of each row that are in the cache before
    step_seconds: float
    outside_seconds: float  # of these, outside the graph, all rows greedy
    sampled_outside_seconds: float | None  # likewise with temperature 0.8 and top_p 0.95; None of a prefill
    operators: list[Operator]  # the dearest first


class Profile(msgspec.Struct, frozen=True):
    provider: str
    threads: int
    phases: list[Phase]
