"""A small encoder of random weights on ONNX Runtime: bound buffers, masks, padding, batches."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from basert.manifest import ENCODER_GOLDEN, MANIFEST, EncoderGolden, read_manifest, write_json
from tests.engines.encoding import EncodingEngine, input_of
from tests.tiny import write_testing_encoder

VOCABULARY, WIDTH, MOST = 304, 8, 64
WEIGHTS = np.random.default_rng(7).standard_normal((VOCABULARY + 2, WIDTH)).astype(np.float32)


def reference(ids: list[int], types: list[int] | None = None) -> NDArray[np.float32]:
    """One head of attention over the embeddings, its mean, at length 1."""
    x = WEIGHTS[ids] + WEIGHTS[VOCABULARY + np.array(types or [0] * len(ids))]
    scores = x @ x.T
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    mean = (weights / weights.sum(axis=1, keepdims=True) @ x).mean(axis=0)
    vector: NDArray[np.float32] = mean / np.linalg.norm(mean)
    return vector


def graph() -> ModelProto:
    constants = {
        "words": WEIGHTS[:VOCABULARY],
        "types": WEIGHTS[VOCABULARY:],
        "one": np.float32(1),
        "far": np.float32(-1e4),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        ("Gather", ["words", "input_ids"], "word"),
        ("Gather", ["types", "token_type_ids"], "type"),
        ("Add", ["word", "type"], "x"),
        ("Cast", ["attention_mask"], "mask"),
        ("Unsqueeze", ["mask", "axis"], "wide"),
        ("Sub", ["one", "wide"], "padding"),
        ("Mul", ["padding", "far"], "bias"),
        ("Transpose", ["x"], "turned"),
        ("MatMul", ["x", "turned"], "scores"),
        ("Add", ["scores", "bias"], "masked"),
        ("Softmax", ["masked"], "weights"),
        ("MatMul", ["weights", "x"], "y"),
        ("MatMul", ["wide", "y"], "sum"),
        ("Squeeze", ["sum", "axis"], "vectors"),
        ("LpNormalization", ["vectors"], "values"),
    ]
    more = {"Cast": {"to": TensorProto.FLOAT}, "Transpose": {"perm": [0, 2, 1]}}
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **more.get(kind, {})) for kind, inputs, output in nodes],
        "small",
        [
            value(name, TensorProto.INT64, ["rows", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [value("values", TensorProto.FLOAT, ["rows", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The testing bundle with another graph and other goldens."""
    bundle = write_testing_encoder(
        tmp_path_factory.mktemp("small"), token_types=True, width=WIDTH, target="cpu"
    )
    manifest = read_manifest(bundle)
    [described] = manifest.graphs
    save(graph(), bundle / "graphs/encoder.onnx")
    moved = msgspec.structs.replace(described, path="graphs/encoder.onnx")
    write_json(bundle / MANIFEST, msgspec.structs.replace(manifest, graphs=[moved]))
    golden = msgspec.json.decode((bundle / ENCODER_GOLDEN).read_bytes(), type=EncoderGolden)
    cases = [msgspec.structs.replace(case, values=reference(case.ids).tolist()) for case in golden.cases]
    write_json(bundle / ENCODER_GOLDEN, EncoderGolden({"cpu": 1e-5}, cases))
    return bundle


def test_vectors_are_the_same_alone_and_in_any_batch(bundle: Path) -> None:
    inputs = [input_of(i, 1 + i * 29 % MOST) for i in range(60)]
    types = [[int(k > len(ids) // 2) for k in range(len(ids))] for ids in inputs]
    expected = [reference(*both) for both in zip(inputs, types, strict=True)]
    with EncodingEngine(bundle) as engine:
        assert engine.info.provider == "CPUExecutionProvider"
        for ids, kinds, values in zip(inputs, types, expected, strict=True):
            number = engine.ask([ids], token_types=[kinds])
            engine.finish()
            assert np.abs(engine.answers(number)[0] - values).max() < 1e-5
        for size in (60, 20, 7):
            numbers = [
                engine.ask(inputs[first : first + size], token_types=types[first : first + size])
                for first in range(0, 60, size)
            ]
            engine.finish()
            for which, number in enumerate(numbers):
                for place, values in engine.answers(number).items():
                    assert np.abs(values - expected[which * size + place]).max() < 1e-5
        used = [bucket for bucket in engine.stats().buckets if bucket.runs]
        assert len(used) > 4
        assert any(bucket.inputs < bucket.runs * bucket.rows for bucket in used)  # with rows left empty


def test_what_ran_before_in_a_row_leaves_no_trace(bundle: Path) -> None:
    """Buffers are shared by all buckets, and used again."""
    long, short = [input_of(i, MOST) for i in range(40)], [input_of(50, 3)]
    with EncodingEngine(bundle) as engine:
        engine.ask(long, token_types=[[1] * MOST] * 40)
        engine.finish()
        for _ in range(3):
            number = engine.ask(short)
            engine.finish()
            assert np.abs(engine.answers(number)[0] - reference(short[0])).max() < 1e-5
