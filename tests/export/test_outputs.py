"""next_token: the first of the largest logits, found in two steps where the vocabulary is large."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.passes.outputs import answer_tokens


def session(vocabulary: int) -> ort.InferenceSession:
    """Answers logits + 0 and their best."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", vocabulary]))
    node = ir.node("Abs", [x])
    node.outputs[0].name, node.outputs[0].type = "logits", x.type
    node.outputs[0].shape = ir.Shape(["rows", vocabulary])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 24}, name="g")
    model = ir.Model(graph, ir_version=11)
    answer_tokens(model)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


SESSIONS = {size: session(size) for size in (301, 1000, 1031, 2048, 49152, 128256)}


@pytest.mark.parametrize("vocabulary", SESSIONS)
def test_the_best_of_random_rows(vocabulary: int) -> None:
    x = np.random.default_rng(vocabulary).random((5, vocabulary), np.float32)
    token, logits = SESSIONS[vocabulary].run(None, {"x": x})
    assert np.array_equal(logits, x)
    assert token.tolist() == x.argmax(axis=1).tolist()


@given(st.sampled_from(sorted(SESSIONS)), st.data())
@settings(deadline=None, max_examples=60)
def test_the_first_of_equals_wherever_they_are(vocabulary: int, data: st.DataObject) -> None:
    x = np.zeros((2, vocabulary), np.float32)
    for row in x:
        row[data.draw(st.lists(st.integers(0, vocabulary - 1), max_size=4))] = 1.5
    token, _ = SESSIONS[vocabulary].run(None, {"x": x})
    assert token.tolist() == x.argmax(axis=1).tolist()
