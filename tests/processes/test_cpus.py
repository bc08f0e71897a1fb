"""CPUs by list and by node: what is refused, and that engines stay on what they were given."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert import config, cpus
from basert.errors import ConfigError
from tests.serving import Server
from tests.tiny import write_testing_bundle

USABLE = sorted(os.sched_getaffinity(0))


@given(st.frozensets(st.sampled_from(USABLE), min_size=1))
def test_a_list_reads_as_it_is_shown(some: frozenset[int]) -> None:
    assert cpus.parse(cpus.shown(some), "--cpus") == some


def test_runs_are_shown_as_ranges() -> None:
    assert cpus.shown([8, 1, 2, 0, 5, 4]) == "0-2,4-5,8"


@pytest.mark.parametrize("text", ["", "x", "3-1", "0,,1", "-1", "0-", "1.5"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--cpus: CPUs such as 0-3,8 are wanted, not {text!r}.")):
        cpus.parse(text, "--cpus")


@pytest.mark.parametrize("flags", [{"cpus": "99999"}, {"cpus": f"{USABLE[0]}/99999", "model": ("a", "b")}])
def test_a_cpu_that_cannot_be_had_is_refused(flags: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"--cpus \(flag --cpus\): CPU 99999 does not exist, or"):
        config.load(flags, {})


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"this machine has no NUMA node 4711; it (has|shows)"):
        config.load({"numa_node": "4711"}, {})


def test_cpus_are_named_once() -> None:
    one = str(USABLE[0])
    with pytest.raises(ConfigError, match="leave one out"):
        config.load({"cpus": one, "numa_node": "0"}, {})
    with pytest.raises(ConfigError, match="has 2 lists for 1 models"):
        config.load({"cpus": f"{one}/{one}", "model": ("a",)}, {})


@pytest.mark.skipif(not (cpus.NODES / "node0").exists(), reason="this kernel shows no NUMA nodes")
def test_a_node_has_its_cpus() -> None:
    assert cpus.of_node(0, "--numa-node") <= set(USABLE)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs n and n + 4 are hardware threads of one core; no quota."""
    for cpu in range(8):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(cpus, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(cpus, "GROUPS", tmp_path)
    monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")


@pytest.mark.usefixtures("machine")
def test_engines_share_whole_cores() -> None:
    assert cpus.divided(range(8), 2) == [({0, 4, 1, 5}, 2), ({2, 6, 3, 7}, 2)]
    assert cpus.divided(range(8), 3) == [({0, 4}, 1), ({1, 5}, 1), ({2, 6, 3, 7}, 2)]
    assert cpus.divided({0, 4, 1}, 2) == [({0, 4}, 1), ({1}, 1)]
    assert cpus.divided({0, 4}, 2) == [({0, 4}, 1)] * 2  # one core for two


@pytest.mark.usefixtures("machine")
def test_engines_share_a_quota(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("200000 100000")
    assert [threads for _, threads in cpus.divided(range(8), 2)] == [1, 1]


def test_engines_stay_on_the_cpus_of_their_model(tmp_path: Path) -> None:
    bundles = [write_testing_bundle(tmp_path, name=name) for name in ("one", "two")]
    lists = [USABLE[0], USABLE[-1]]
    with Server(bundles, ["--cpus", "/".join(map(str, lists))]) as server:
        commands = {tuple(process.cmdline()): process for process in server.processes()}
        for name, cpu in zip(("one", "two"), lists, strict=True):
            [engine] = [one for line, one in commands.items() if "engines" in line and name in line]
            assert isinstance(engine, psutil.Process)
            assert engine.cpu_affinity() == [cpu]
