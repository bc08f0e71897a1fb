"""Opening sessions, and what they refuse; how many cores they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from basert import cpus
from basert.errors import BundleError
from basert.manifest import Graph, KVCache, Manifest, read_manifest
from engines import sessions
from engines.loading import graphs_for
from engines.sessions import SessionOptions, cpu, open_session
from tests.tiny import write_testing_encoder

OPTIONS = SessionOptions(slots=2, max_context=64, threads=1)


@pytest.fixture(scope="module")
def decoder(tiny_llama: tuple[Path, Path]) -> tuple[Path, Graph, KVCache]:
    bundle = tiny_llama[0]
    manifest = read_manifest(bundle)
    graph = next(graph for graph in manifest.graphs if graph.role == "decoder")
    return bundle / graph.path, graph, manifest.kv_cache


def test_a_cpu_session_says_what_runs_it(decoder: tuple[Path, Graph, KVCache]) -> None:
    assert open_session(*decoder, OPTIONS).provider == "CPUExecutionProvider"


@pytest.mark.filterwarnings("ignore")
def test_a_session_on_another_provider_than_asked_for_is_refused(
    decoder: tuple[Path, Graph, KVCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no such device, and ONNX Runtime falls back to the CPU with a warning."""
    monkeypatch.setattr(cpu.CpuSession, "wanted", "CUDAExecutionProvider")
    with pytest.raises(BundleError, match="got CPUExecutionProvider"):
        open_session(*decoder, OPTIONS)


def test_what_is_no_graph_is_refused(decoder: tuple[Path, Graph, KVCache], tmp_path: Path) -> None:
    _, graph, kv = decoder
    (tmp_path / "decoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="does not load"):
        open_session(tmp_path / "decoder.onnx", graph, kv, OPTIONS)


def test_a_target_that_is_not_in_the_table_is_refused(decoder: tuple[Path, Graph, KVCache]) -> None:
    path, graph, kv = decoder
    moved = Graph("decoder", "npu", graph.path, [], [], [1], [8])
    with pytest.raises(BundleError, match="'npu', only for openvino, cpu"):
        open_session(path, moved, kv, OPTIONS)


@pytest.fixture
def two_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """An encoder with a graph for a runtime that is not installed, and one for the testing session."""
    manifest = read_manifest(write_testing_encoder(tmp_path))
    monkeypatch.setitem(sessions.TARGETS, "absent", "engines.sessions.no_such_runtime:Session")
    [graph] = manifest.graphs
    return msgspec.structs.replace(manifest, graphs=[msgspec.structs.replace(graph, target="absent"), graph])


def test_auto_takes_the_graphs_that_have_their_runtime_here(two_targets: Manifest) -> None:
    for provider in ("auto", ""):
        assert [graph.target for graph in graphs_for(two_targets, provider, "encoder")] == ["testing"]
    assert [graph.target for graph in graphs_for(two_targets, "absent", "encoder")] == ["absent"]
    with pytest.raises(BundleError, match="no graph for 'cpu', only for absent, testing"):
        graphs_for(two_targets, "cpu", "encoder")


def test_a_runtime_that_is_not_installed_is_refused_by_name(two_targets: Manifest) -> None:
    [graph] = graphs_for(two_targets, "absent", "encoder")
    with pytest.raises(BundleError, match="the runtime for 'absent' is not installed"):
        open_session(Path(graph.path), graph, two_targets.kv_cache, OPTIONS)


def test_a_cache_that_cannot_be_had_is_refused(decoder: tuple[Path, Graph, KVCache]) -> None:
    with pytest.raises(BundleError, match="fewer slots"):
        open_session(*decoder, replace(OPTIONS, slots=1 << 40))


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_largest_8_bit_products_are_exact_on_this_cpu(rows: int) -> None:
    """In sums of pairs, 255 * 127 twice is more than 16 bits hold: some CPUs saturate there."""
    weights = np.tile(np.array([127, -128], np.int8), (256, 16))
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["sum"])
    value = onnx.helper.make_tensor_value_info
    ends = [value("a", onnx.TensorProto.UINT8, None)], [value("sum", onnx.TensorProto.INT32, None)]
    graph = onnx.helper.make_graph([node], "products", *ends, [onnx.numpy_helper.from_array(weights, "b")])
    opset = [onnx.helper.make_opsetid("", 21)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    session = ort.InferenceSession(model, cpu.session_options(OPTIONS), providers=[cpu.PROVIDER])
    inputs = np.full((rows, 256), 255, np.uint8)
    [found] = session.run(None, {"a": inputs})
    assert np.array_equal(found, inputs.astype(np.int32) @ weights.astype(np.int32))


def topology(folder: Path, siblings: list[str]) -> Path:
    for number, names in enumerate(siblings):
        place = folder / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(names + "\n")
    return folder


@pytest.mark.parametrize(
    ("allowed", "quotas", "expected"),
    [
        ({0, 1, 2, 3}, {}, 2),
        ({0, 2}, {}, 1),
        ({0, 1}, {}, 2),
        ({0, 1, 2, 3}, {"a/b": "100000 100000"}, 1),
        ({0, 1, 2, 3}, {"a": "150000 100000", "a/b": "max 100000"}, 1),
        ({0, 1, 2, 3}, {"": "50000 100000"}, 1),
        ({0, 1, 2, 3}, {"a/b": "900000 100000"}, 2),
    ],
)
def test_threads_are_the_physical_cores_within_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: set[int], quotas: dict[str, str], expected: int
) -> None:
    """Two cores with two hardware threads each: 0 and 2, 1 and 3."""
    monkeypatch.setattr(cpus, "TOPOLOGY", topology(tmp_path / "cpus", ["0,2", "1,3", "0,2", "1,3"]))
    monkeypatch.setattr(cpus, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed)
    (tmp_path / "own").write_text("0::/a/b\n")
    for group, quota in quotas.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "cpu.max").write_text(quota + "\n")
    assert cpus.usable_cores() == expected


def test_a_machine_that_tells_nothing_has_its_hardware_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5})
    assert cpus.usable_cores() == 3
