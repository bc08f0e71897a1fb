"""Numbers as requests want them: exact on the wire, and calm about extremes."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from basert import vectors

# No subnormals: an engine that ran in this process has set it to treat them as zero.
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
TABLES = arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 8)), elements=FLOATS)


@given(TABLES, st.integers(1, 8))
def test_numbers_are_exact_on_the_wire(table: np.ndarray, width: int) -> None:
    wanted = table[:, :width]
    slices = vectors.written(table, vectors.as_floats, width, normalise=False)
    rows = [json.loads(row) for rows in slices for row in rows]
    assert np.array_equal(np.array(rows, np.float32), wanted)
    slices = vectors.written(table, vectors.as_base64, width, normalise=False)
    raw = [base64.b64decode(json.loads(row)) for rows in slices for row in rows]
    assert np.array_equal([np.frombuffer(row, "<f4") for row in raw], wanted)


def test_numbers_are_as_short_as_they_can_be() -> None:
    assert vectors.as_floats(np.array([0.1, 1 / 3, 1, -2.5], np.float32)) == b"[0.1,0.33333334,1.0,-2.5]"


@pytest.mark.parametrize("rows", [1, 100, 3000])
def test_slices_are_all_of_it_and_none_is_long(rows: int) -> None:
    table = np.arange(rows * 64, dtype=np.float32).reshape(rows, 64)
    lengths = [len(rows) for rows in vectors.written(table, vectors.as_floats, 64, normalise=False)]
    assert sum(lengths) == rows
    assert max(lengths) * 64 <= vectors.SLICE


def test_what_is_cut_has_length_one_and_zeros_stay_zeros() -> None:
    table = vectors.cut(np.array([[3, 4, 9], [0, 0, 5]], np.float32), 2, normalise=True)
    assert np.allclose(table, [[0.6, 0.8], [0, 0]])
    assert table.dtype == np.float32


def test_answers_are_put_where_they_belong() -> None:
    table = vectors.empty(3, 2)
    vectors.fill(table, [2, 0], np.array([[5, 6], [1, 2]], "<f4").tobytes())
    vectors.fill(table, [1], np.array([[3, 4]], "<f4").tobytes())
    assert table.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_one_is_compared_with_all_or_each_with_its_own() -> None:
    ones, others = np.array([[1, 0]], np.float32), np.array([[2, 0], [0, 3], [-4, 0], [0, 0]], np.float32)
    assert vectors.similarities(ones, others, "cosine") == [1, 0, -1, 0]
    assert vectors.similarities(ones, others, "dot") == [2, 0, -4, 0]
    assert vectors.similarities(others, others, "dot") == [4, 9, 16, 0]


@given(st.lists(st.floats(-1000, 1000, width=32, allow_subnormal=False), min_size=1, max_size=5))
def test_scores_are_probabilities_whatever_the_logits(logits: list[float]) -> None:
    table = np.array([logits], np.float32)
    sigmoid = vectors.scores(table, "sigmoid")[0]
    for score, logit in zip(sigmoid, table[0].astype(float), strict=True):
        assert 0 <= score <= 1
        if abs(logit) < 30:
            assert math.isclose(score, 1 / (1 + math.exp(-logit)), rel_tol=1e-9)
    softmax = vectors.scores(table, "softmax")[0]
    assert math.isclose(softmax.sum(), 1)
    assert np.argmax(softmax) == np.argmax(table[0])
    assert vectors.scores(table, "none").tolist() == table.tolist()
