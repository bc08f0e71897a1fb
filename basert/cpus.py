"""CPUs as people name them, "0-3,8", and as the kernel grants them. Changes nothing; engines apply it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from basert.errors import ConfigError

NODES = Path("/sys/devices/system/node")
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse(text: str, source: str) -> frozenset[int]:
    """The CPUs that a list names, all of them usable here. Raises ConfigError that begins with `source`."""
    try:
        cpus = frozenset(cpu for part in text.split(",") for cpu in _range(part.strip()))
    except ValueError:
        raise ConfigError(f"{source}: CPUs such as 0-3,8 are wanted, not {text!r}.") from None
    usable = os.sched_getaffinity(0)
    if missing := sorted(cpus - usable):
        raise ConfigError(
            f"{source}: CPU {missing[0]} does not exist, or this process may not use it; "
            f"it may use {shown(usable)}."
        )
    return cpus


def of_node(node: int, source: str) -> frozenset[int]:
    """The usable CPUs of a NUMA node. Raises ConfigError that begins with `source`."""
    try:
        text = (NODES / f"node{node}" / "cpulist").read_text().strip()
    except OSError:
        there = sorted(int(path.name[4:]) for path in NODES.glob("node[0-9]*"))
        has = f"it has {shown(there)}" if there else "it shows none"
        raise ConfigError(f"{source}: this machine has no NUMA node {node}; {has}.") from None
    cpus = frozenset(cpu for part in text.split(",") if part for cpu in _range(part))
    if not cpus & os.sched_getaffinity(0):
        raise ConfigError(f"{source}: NUMA node {node} has no CPU that this process may use; name another.")
    return cpus & os.sched_getaffinity(0)


def shown(cpus: Iterable[int]) -> str:
    """As `parse` reads them: 0-3,8."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _range(part: str) -> range:
    """Raises ValueError."""
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(part)
    first = int(match[1])
    last = int(match[2] or first)
    if last < first:
        raise ValueError(part)
    return range(first, last + 1)
