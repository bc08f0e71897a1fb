"""The profiler on real graphs: every operator of a step, each microsecond once."""

from __future__ import annotations

from pathlib import Path

import pytest

from basert.bench.profiling import profile, render
from basert.errors import BundleError
from basert.profile import Phase
from engines.trace import Arguments, Event, median_operators, own_times
from tests.tiny import write_testing_bundle


def calls(phase: Phase) -> dict[str, int]:
    return {one.name: one.calls for one in phase.operators}


def test_every_phase_lists_the_operators_of_its_steps(tiny_llama: tuple[Path, Path]) -> None:
    found = profile(tiny_llama[0], rows=(1, 2), context=20, threads=1)
    assert [(one.name, one.rows, one.context) for one in found.phases[:2]] == [
        ("decode", 1, 20),
        ("decode", 2, 20),
    ]
    assert found.phases[2].name == "prefill"
    assert found.phases[2].chunk == found.phases[2].context > 1
    for phase in found.phases:
        assert calls(phase)["GroupQueryAttention"] == 2  # layers
        assert calls(phase)["ArgMax"] == 1
        assert 0 < phase.outside_seconds < phase.step_seconds
        assert phase.operators == sorted(phase.operators, key=lambda one: -one.microseconds)
    assert "Decode, 2 rows, 20 tokens before" in render(found, "tiny")


def test_branches_count_once(smollm2_w8a8: Path) -> None:
    """An int8 cache puts the attention of each layer into an If; the If itself takes next to nothing."""
    found = profile(smollm2_w8a8, rows=(1,), context=16, threads=1)
    decode, prefill = ({one.name: one for one in phase.operators} for phase in found.phases)
    assert decode["GroupQueryAttention"].calls == 30
    assert prefill["Attention"].calls % 30 == 0  # a long chunk attends in several pieces
    assert "Attention" not in decode
    assert "GroupQueryAttention" not in prefill
    for operators in (decode, prefill):
        dearest = max(operators.values(), key=lambda one: one.microseconds)
        assert operators["If"].calls >= 30
        assert operators["If"].microseconds < dearest.microseconds


def test_a_node_does_not_count_what_runs_inside_it() -> None:
    def node(name: str, start: int, duration: int) -> Event:
        return Event(name, start, "Node", duration, Arguments(name))

    nodes = [node("If", 0, 100), node("If", 5, 60), node("Add", 10, 50), node("Mul", 70, 30)]
    found = own_times([*nodes, node("Add", 100, 7)])
    assert found == {"If": (2, 20), "Add": (2, 57), "Mul": (1, 30)}
    assert sum(total.microseconds for total in found.values()) == 107


def test_the_typical_run_is_the_median() -> None:
    runs = [own_times([Event("n", 0, "Node", took, Arguments("Add"))]) for took in (3, 900, 4)]
    [add] = median_operators(runs)
    assert (add.name, add.calls, add.microseconds) == ("Add", 1, 4)


def test_a_bundle_without_a_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="keeps no profile"):
        profile(write_testing_bundle(tmp_path, sentence=""), rows=(1,), context=8, threads=1)
