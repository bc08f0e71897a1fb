"""What engines may take, and what is there: on machines that are made of files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from basert import cpus
from basert.config import ServeConfig
from basert.errors import Conflict
from basert.manifest import File, Graph, KVCache, Manifest, Tensor, read_manifest
from basert.supervisor import planning
from basert.supervisor.planning import Plan, available, check_adapter, check_room, planned
from tests.tiny import write_testing_bundle

GB = 10**9


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two layers of 2 heads with 64 numbers; 4 slots of 256 tokens; 1 GB for one provider, 2 for another."""
    graphs = [Graph("decoder", target, f"graphs/{target}.onnx", [], []) for target in ("cpu", "openvino")]
    sizes = {
        "graphs/cpu.onnx": 1,
        "graphs/cpu.onnx.data": GB,
        "graphs/openvino.onnx": 2 * GB,
        "tokenizer.json": 7,
    }
    return msgspec.structs.replace(
        read_manifest(write_testing_bundle(tmp_path)),
        kv_cache=KVCache("int8", [2, 2], [64, 64]),
        graphs=graphs,
        files=[File(path, "", size) for path, size in sizes.items()],
    )


def test_the_graph_that_is_run_counts_or_the_largest(manifest: Manifest) -> None:
    weights = [planned(manifest, ServeConfig(provider=one)).weights for one in (None, "auto", "cpu", "none")]
    assert weights == [2 * GB, 2 * GB, GB + 1, 2 * GB]


def test_all_slots_count_full(manifest: Manifest) -> None:
    token = 2 * 2 * 2 * 64
    assert planned(manifest, ServeConfig()).cache == 4 * 256 * token
    assert planned(manifest, ServeConfig(continuous_batching=10, max_context=100)).cache == 10 * 100 * token
    floats = msgspec.structs.replace(manifest, kv_cache=KVCache("float32", [2, 2], [64, 64]))
    assert planned(floats, ServeConfig(max_context=9999)).cache == 4 * 4 * 256 * token


def test_what_a_speech_model_has_heard_counts(manifest: Manifest) -> None:
    heard = [Tensor(f"cross.0.{kind}", "float32", ["rows", 2, 1500, 64]) for kind in ("key", "value")]
    listener = Graph("listener", "cpu", "graphs/cpu.onnx", [], heard)
    speech = msgspec.structs.replace(manifest, graphs=[*manifest.graphs, listener])
    more = planned(speech, ServeConfig()).cache - planned(manifest, ServeConfig()).cache
    assert more == 4 * 2 * 4 * 2 * 1500 * 64


def test_every_replica_counts(manifest: Manifest) -> None:
    one, three = (planned(manifest, ServeConfig(replicas=count)) for count in (1, 3))
    assert three == Plan(3 * one.weights, 3 * one.cache, 3 * one.workspace)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """8 GB available; the outer of two control groups may have 4, of which 3 are used, 1 droppable."""
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {8 * 2**20} kB\n")
    (tmp_path / "own").write_text("0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("5\n")
    for name, text in (
        ("max", 4 << 30),
        ("current", 3 << 30),
        ("stat", f"anon 1\ninactive_file {1 << 30}\n"),
    ):
        (inner.parent / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(planning, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cpus, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")
    return inner.parent


def test_the_narrowest_limit_counts(machine: Path) -> None:
    assert available() == 2 << 30
    (machine / "memory.current").write_text(f"{9 << 30}\n")
    assert available() == 0
    (machine / "memory.max").write_text("max\n")
    assert available() == 8 << 30


def test_what_others_may_still_take_is_theirs(machine: Path) -> None:
    plan = Plan(weights=GB, cache=GB // 2, workspace=GB // 4)
    check_room("m", plan, promised=(2 << 30) - plan.total)
    with pytest.raises(Conflict) as refused:
        check_room("m", plan, promised=(2 << 30) - plan.total + 1)
    assert str(refused.value) == (
        "m needs up to 1.75GB (1.00GB weights, 500MB keys and values, 250MB workspace) of main memory, and "
        "2.15GB are free, of which the models that are loaded may still take 397MB; unload another model, or "
        "serve with a smaller --continuous-batching or --max-context."
    )
    with pytest.raises(Conflict, match=r"and 2\.15GB are free; unload"):
        check_room("m", dataclasses.replace(plan, weights=9 * GB), promised=0)


def test_the_first_adapter_takes_the_weights_once_more(manifest: Manifest) -> None:
    files: list[tuple[int, ...]] = [(), (100,), (100, 50)]
    none, one, two = (planned(manifest, ServeConfig(replicas=2), its).weights for its in files)
    assert (one, two) == (2 * none + 200, 2 * none + 300)


def test_an_adapter_without_room_is_refused(machine: Path) -> None:
    check_adapter("parrot", available())
    with pytest.raises(
        Conflict, match=r"^The adapter parrot needs up to .* of main memory, and .* are free; unload"
    ):
        check_adapter("parrot", available() + 1)
