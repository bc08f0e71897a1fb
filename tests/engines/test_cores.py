"""How many threads an engine starts, on machines that are made of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from basert import cpus

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Four CPUs on two cores; quota and outer: cpu.max of the own control group and of the one around it."""

    def build(allowed: set[int], quota: str = "max 100000", outer: str = "max 100000") -> None:
        for cpu in range(4):
            topology = tmp_path / f"cpu{cpu}" / "topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
        inner = tmp_path / "groups" / "outer" / "inner"
        inner.mkdir(parents=True)
        (inner / "cpu.max").write_text(quota)
        (inner.parent / "cpu.max").write_text(outer)
        (tmp_path / "own").write_text("0::/outer/inner\n")
        monkeypatch.setattr(cpus, "TOPOLOGY", tmp_path)
        monkeypatch.setattr(cpus, "GROUPS", tmp_path / "groups")
        monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)

    return build


@pytest.mark.parametrize(("allowed", "expected"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 3}, 2), ({1}, 1)])
def test_threads_of_one_core_count_once(machine: Machine, allowed: set[int], expected: int) -> None:
    machine(allowed)
    assert cpus.usable_cores() == expected


@pytest.mark.parametrize(
    ("quota", "outer", "expected"),
    [
        ("100000 100000", "max 100000", 1),
        ("max 100000", "150000 100000", 1),
        ("50000 100000", "max 100000", 1),
        ("400000 100000", "300000 100000", 2),
    ],
)
def test_the_control_groups_limit_it(machine: Machine, quota: str, outer: str, expected: int) -> None:
    machine({0, 1, 2, 3}, quota, outer)
    assert cpus.usable_cores() == expected
