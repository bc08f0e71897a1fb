"""The runtime's profile of many runs to times by operator, run by run. Knows ONNX Runtime's file format."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from basert.profile import Operator

RUN = "model_run"


class Arguments(msgspec.Struct):
    op_name: str = ""


class Event(msgspec.Struct):
    """Microseconds; in the file's order an event comes after those that are inside it."""

    name: str
    ts: int
    cat: str = ""
    dur: int = 0
    args: Arguments = msgspec.field(default_factory=Arguments)

    @property
    def end(self) -> int:
        return self.ts + self.dur


class Total(NamedTuple):
    calls: int
    microseconds: int


Run = dict[str, Total]  # by operator type


def read_runs(path: Path) -> list[Run]:
    """Each run of the graph, in order: what its operators took, without what ran inside them."""
    events = msgspec.json.decode(path.read_bytes(), type=list[Event])
    runs = sorted((event for event in events if event.name == RUN), key=lambda event: event.ts)
    nodes = sorted(
        (event for event in events if event.cat == "Node"), key=lambda event: (event.ts, -event.dur)
    )
    found: list[Run] = []
    first = 0
    for run in runs:
        while first < len(nodes) and nodes[first].ts < run.ts:
            first += 1
        last = first
        while last < len(nodes) and nodes[last].ts <= run.end:
            last += 1
        found.append(own_times(nodes[first:last]))
        first = last
    return found


def own_times(nodes: Sequence[Event]) -> Run:
    """By operator type. A node's time without that of the nodes inside it; sorted by start, longest first."""
    totals: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    around: list[Event] = []
    for node in nodes:
        while around and node.end > around[-1].end:
            around.pop()
        if around:
            totals[around[-1].args.op_name][1] -= node.dur
        totals[node.args.op_name][0] += 1
        totals[node.args.op_name][1] += node.dur
        around.append(node)
    return {name: Total(*total) for name, total in totals.items()}


def median_operators(runs: Sequence[Run]) -> list[Operator]:
    """What each operator type takes in a typical one of runs of the same shape, the dearest first."""
    names = {name for run in runs for name in run}
    operators = [
        Operator(
            name,
            max(run[name].calls for run in runs if name in run),
            statistics.median(run[name].microseconds if name in run else 0 for run in runs),
        )
        for name in names
    ]
    return sorted(operators, key=lambda one: (-one.microseconds, one.name))
