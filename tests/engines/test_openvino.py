"""The second real provider: what it computes, what it refuses, what it keeps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from basert.errors import BundleError
from basert.manifest import Graph, KVCache, Manifest, read_manifest
from engines.compiled import FOLDER, Compiled
from engines.sessions import SessionOptions, open_session, why_not
from engines.sessions import openvino as provider
from tests.tiny import write_testing_encoder

OPTIONS = SessionOptions(1, 64, threads=1)
NO_CACHE = KVCache("float32", [], [])


def write_graph(path: Path, *, foreign: bool = False) -> None:
    """values[rows, 4]: a mean over an embedding of the ids; foreign: through what OpenVINO does not know."""
    table = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["gathered"]),
        helper.make_node("ReduceMean", ["gathered", "axis"], ["mean"], keepdims=0),
        helper.make_node("CDist", ["mean", "centres"], ["values"], domain="com.microsoft", metric="euclidean")
        if foreign
        else helper.make_node("Tanh", ["mean"], ["values"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, ["rows", 4])
    constants = {"table": table, "centres": table[:4], "axis": np.array([1])}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "encoder", [ids], [values], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def graph_for(target: str) -> Graph:
    return Graph("encoder", target, "graphs/encoder.onnx", [], [], shapes=[(2, 8)])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    bundle = write_testing_encoder(tmp_path)
    write_graph(bundle / "graphs/encoder.onnx")
    return bundle


def run(path: Path, target: str, *batches: np.ndarray, compiled: Compiled | None = None) -> list[np.ndarray]:
    """The answers to batches that go through one binding."""
    options = SessionOptions(1, 64, threads=1, compiled=compiled)
    session = open_session(path / "graphs/encoder.onnx", graph_for(target), NO_CACHE, options)
    feeds, fetches = {"input_ids": batches[0].copy()}, {"values": np.zeros((len(batches[0]), 4), np.float32)}
    step, answers = session.bind(0, feeds, fetches), []
    for batch in batches:
        feeds["input_ids"][...] = batch
        step()
        answers.append(fetches["values"].copy())
    return answers


def test_it_computes_what_the_cpu_provider_does(bundle: Path) -> None:
    batches = [np.arange(16).reshape(2, 8), np.arange(16, 32).reshape(2, 8)]
    for ours, reference in zip(run(bundle, "openvino", *batches), run(bundle, "cpu", *batches), strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-2)  # bf16, where the CPU has it
    assert provider.OpenVinoSession(bundle / "graphs/encoder.onnx", NO_CACHE, OPTIONS).provider == (
        "OpenVINOExecutionProvider"
    )


def test_a_graph_that_it_would_leave_in_part_to_others_is_refused(bundle: Path) -> None:
    write_graph(bundle / "graphs/encoder.onnx", foreign=True)
    batch = np.ones((2, 8), np.int64)
    run(bundle, "cpu", batch)
    with pytest.raises(BundleError, match=r"does not load"):
        run(bundle, "openvino", batch)


def test_where_it_is_not_installed_it_says_how_to(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.setattr(provider, "PACKAGE", "no_such_package")
    assert "basert[openvino]" in why_not("openvino")
    with pytest.raises(BundleError, match=r"cannot be run here: .*basert\[openvino\]"):
        open_session(bundle / "graphs/encoder.onnx", graph_for("openvino"), NO_CACHE, OPTIONS)


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return read_manifest(bundle)


def test_what_it_compiled_is_kept_and_used(bundle: Path, manifest: Manifest) -> None:
    batch = np.arange(16).reshape(2, 8)
    compiled = Compiled(bundle, manifest, graph_for("openvino"))
    [first] = run(bundle, "openvino", batch, compiled=compiled)
    (bundle / "graphs/encoder.onnx").unlink()  # so that only what is kept can answer
    [second] = run(bundle, "openvino", batch, compiled=compiled)
    np.testing.assert_array_equal(first, second)


def test_what_is_kept_and_cannot_be_used_is_made_anew(
    bundle: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    batch = np.arange(16).reshape(2, 8)
    compiled = Compiled(bundle, manifest, graph_for("openvino"))
    [first] = run(bundle, "openvino", batch, compiled=compiled)
    for file in (bundle / FOLDER).glob(f"*/{provider.CONTEXT}"):
        file.write_bytes(bytes(file.stat().st_size))
    with caplog.at_level(logging.WARNING):
        [second] = run(bundle, "openvino", batch, compiled=compiled)
    assert "made anew" in caplog.text
    np.testing.assert_array_equal(first, second)
    caplog.clear()
    run(bundle, "openvino", batch, compiled=compiled)
    assert not caplog.text
