"""CPUs as people name them, "0-3,8", and as the kernel grants them. Changes nothing; engines apply it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from basert.errors import ConfigError

NODES = Path("/sys/devices/system/node")
TOPOLOGY = Path("/sys/devices/system/cpu")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 16
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


def usable_cores() -> int:
    """How many threads are worth starting: the physical cores within the CPU affinity and the control group's
    quota; at least 1."""
    return max(1, min(len(_cores(os.sched_getaffinity(0))), _quota()))


def divided(cpus: Iterable[int], parts: int) -> list[tuple[frozenset[int], int]]:
    """CPUs for each of several engines, whole physical cores, and how many threads are worth starting there.

    Where there are fewer cores than engines, all of them get all CPUs and one thread each.
    """
    cores = _cores(cpus)
    if len(cores) < parts:
        return [(frozenset(cpus), 1)] * parts
    quota = max(1, _quota() // parts)
    ends = [len(cores) * part // parts for part in range(parts + 1)]
    shares = [cores[begin:end] for begin, end in pairwise(ends)]
    return [(frozenset().union(*share), min(len(share), quota)) for share in shares]


def control_groups() -> list[Path]:
    """The folders of this process' control group (version 2) and of those around it, if it has one."""
    try:
        own = OWN_GROUP.read_text().rpartition("::")[2].strip().strip("/")
    except OSError:
        return []
    group = GROUPS / own
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(GROUPS)]


def _cores(cpus: Iterable[int]) -> list[frozenset[int]]:
    """The hardware threads among `cpus` that share a physical core, core by core."""
    found: dict[str, set[int]] = defaultdict(set)
    for cpu in sorted(cpus):
        found[_siblings(cpu)].add(cpu)
    return [frozenset(core) for core in found.values()]


def _siblings(cpu: int) -> str:
    """What names the core of a hardware thread: the list of all its threads."""
    try:
        return (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole CPUs that the control groups grant."""
    return min(map(_quota_of, control_groups()), default=UNLIMITED)


def _quota_of(group: Path) -> int:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return UNLIMITED
    return UNLIMITED if quota == "max" else max(1, int(quota) // int(period))
