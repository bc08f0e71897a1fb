"""How many threads are worth starting: the physical cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 16


def usable_cores() -> int:
    """Physical cores within the CPU affinity and the control group's quota; at least 1."""
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _quota()))


def _siblings(cpu: int) -> str:
    """What names the core of a hardware thread: the list of all its threads."""
    try:
        return (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole CPUs that the control group (version 2) and those around it grant."""
    try:
        own = OWN_GROUP.read_text().rpartition("::")[2].strip().strip("/")
    except OSError:
        return UNLIMITED
    group = GROUPS / own
    return min(_quota_of(folder) for folder in (group, *group.parents) if folder.is_relative_to(GROUPS))


def _quota_of(group: Path) -> int:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return UNLIMITED
    return UNLIMITED if quota == "max" else max(1, int(quota) // int(period))
