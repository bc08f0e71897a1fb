"""Which of an encoder's graphs runs fastest on this host, where several can: measured once, then known.

The larger the bucket, the more the runtimes differ; how long a lone short text takes counts as much as how
long a full run does. What was found is kept with what was compiled, for this host and these versions; unless
other work kept the CPUs busy meanwhile, which some runtimes suffer from more than others.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean

import msgspec

from basert.errors import BundleError
from basert.manifest import Graph
from engines.buckets import Bucket
from engines.compiled import Compiled

CHOICE = "choice.json"
ROUNDS = 5  # that the candidates take turns in; a first one warms up
# Seconds of each second that this process' threads wait for a CPU: what is measured then is not kept.
BUSY = 0.2
THREADS = Path("/proc/self/task")

Time = Callable[[Bucket], float]  # seconds that a run takes

_log = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True):
    target: str
    milliseconds: dict[str, float]  # by target: the geometric mean over the buckets that were timed


def seconds_waited() -> float:
    """That this process' threads were ready and had no CPU (proc(5), schedstat); 0 where nobody counts."""
    waited = 0
    for thread in THREADS.iterdir():
        with contextlib.suppress(OSError):  # it has ended, or the kernel does not count
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


def fastest(
    graphs: Sequence[Graph],
    open_graph: Callable[[Graph], Time],
    compiled: Compiled,
    *,
    waited: Callable[[], float] = seconds_waited,
    **facts: str,
) -> Graph:
    """open_graph: starts a graph's runtime; facts: what else the choice depends on; waited: seconds so far
    without a CPU.

    A graph that does not start is passed over with a warning. Raises BundleError when none does.
    """
    facts = {"kind": "choice", "targets": " ".join(graph.target for graph in graphs), **facts}
    choice = _known(compiled.find(**facts))
    if choice is None:
        began, before = time.perf_counter(), waited()
        choice = _measured(graphs, open_graph)
        if waited() - before > BUSY * (time.perf_counter() - began):
            _log.info("the CPUs had other work while runtimes were compared; that is done again next time")
        else:
            _keep(choice, compiled, facts)
    told = ", ".join(f"{target} {spent:.2f} ms" for target, spent in choice.milliseconds.items())
    _log.info("on this host %s is the fastest (%s)", choice.target, told)
    return next(graph for graph in graphs if graph.target == choice.target)


def _keep(choice: Choice, compiled: Compiled, facts: Mapping[str, str]) -> None:
    with compiled.adding(**facts) as folder:
        if folder is not None:
            (folder / CHOICE).write_bytes(msgspec.json.encode(choice))


def _known(folder: Path | None) -> Choice | None:
    try:
        return msgspec.json.decode((folder / CHOICE).read_bytes(), type=Choice) if folder else None
    except (OSError, msgspec.DecodeError):
        return None


def _measured(graphs: Sequence[Graph], open_graph: Callable[[Graph], Time]) -> Choice:
    opened: dict[str, Time] = {}
    trouble = ""
    for graph in graphs:
        try:
            opened[graph.target] = open_graph(graph)
        except BundleError as error:
            trouble = error.message
            _log.warning("%s", trouble)
    if not opened:
        raise BundleError(trouble)
    buckets = samples([Bucket(*shape) for shape in graphs[0].shapes])
    spent = {target: 1e3 * mean for target, mean in _means(opened, buckets).items()}
    return Choice(min(spent, key=lambda target: spent[target]), spent)


def _means(opened: Mapping[str, Time], buckets: Sequence[Bucket]) -> dict[str, float]:
    """Of the least time that each bucket took: what else goes on in the machine only adds to it."""
    least = {target: dict.fromkeys(buckets, float("inf")) for target in opened}
    for number in range(ROUNDS + 1):
        for target, run in opened.items():
            for bucket in buckets:
                seconds = run(bucket)
                if number:
                    least[target][bucket] = min(least[target][bucket], seconds)
    return {target: geometric_mean(found.values()) for target, found in least.items()}


def samples(buckets: Sequence[Bucket]) -> list[Bucket]:
    """A short text alone, a longer one alone, and a full run between them."""
    by_size = sorted(buckets, key=lambda bucket: (bucket.rows, bucket.tokens))
    alone = [bucket for bucket in by_size if bucket.rows == by_size[0].rows]
    middle = sorted(buckets, key=lambda bucket: bucket.tokens)[len(buckets) // 2].tokens
    full = max((bucket for bucket in buckets if bucket.tokens == middle), key=lambda bucket: bucket.rows)
    return list(dict.fromkeys([alone[len(alone) // 4], alone[len(alone) // 2], full]))
