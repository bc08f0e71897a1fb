"""Rounding to int8 that makes up for its errors, and the search for how far to smooth, on arrays alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export.passes.anatomy import Linear
from export.passes.compensate import columns_to_int8
from export.passes.editing import Editor
from export.passes.search import least_error
from export.passes.smooth import Site, for_rounded_weights

Array = np.ndarray[Any, Any]
FINITE = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)  # sessions flush subnormals to zero


def inputs(rows: int, channels: int, seed: int = 0) -> Array:
    """Channels that move together, as those of a real layer do."""
    draw = np.random.default_rng(seed)
    few = draw.standard_normal((rows, channels // 4))
    mixed = few @ draw.standard_normal((channels // 4, channels))
    return np.asarray(mixed + 0.1 * draw.standard_normal((rows, channels)), np.float32)


def error(x: Array, matrix: Array, gram: Array | None) -> float:
    values, scale = columns_to_int8(matrix, gram)
    return float(np.square(x @ (values * scale - matrix)).mean())


def test_columns_are_rounded_each_by_its_own_scale() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32) * np.logspace(
        -3, 3, 8, dtype=np.float32
    )
    matrix[:, 3] = 0
    values, scale = columns_to_int8(matrix)
    assert values.dtype == np.int8
    assert np.abs(values).max() == 127
    assert (np.abs(values * scale - matrix) <= scale * 0.5001).all()
    assert not values[:, 3].any()


def test_errors_make_up_for_each_other_on_rows_that_were_not_seen() -> None:
    matrix = np.random.default_rng(1).standard_normal((160, 24)).astype(np.float32)
    both = inputs(3000, 160)
    seen, unseen = both[:2000], both[2000:]
    assert error(unseen, matrix, seen.T @ seen) < 0.35 * error(unseen, matrix, None)


def test_channels_that_do_not_move_together_are_rounded_to_the_nearest() -> None:
    matrix = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    alone, scale = columns_to_int8(matrix, np.eye(100, dtype=np.float32))
    nearest, same = columns_to_int8(matrix)
    assert np.array_equal(alone, nearest)
    assert np.array_equal(scale, same)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (70, 3), elements=FINITE), arrays(np.float32, (9, 70), elements=FINITE))
def test_any_weights_and_rows_give_finite_steps(matrix: Array, x: Array) -> None:
    """Silent channels, channels that are copies of each other, fewer rows than channels."""
    values, scale = columns_to_int8(matrix, x.T @ x)
    assert values.dtype == np.int8
    assert values.shape == matrix.shape
    assert np.abs(values.astype(int)).max() <= 127
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


def site(matrix: Array, x: Array) -> Site:
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 24]>
        g (float[rows, {len(matrix)}] x) => (float[rows, {matrix.shape[1]}] y) {{ y = MatMul (x, w) }}"""
    )
    [node] = model.graph
    node.replace_input_with(1, Editor(model).constant("w", matrix))
    return Site(np.sqrt(np.square(x).sum(0)), np.abs(matrix).max(1), [Linear(node)])


def test_the_search_smooths_one_loud_channel_and_leaves_even_ones_alone() -> None:
    draw = np.random.default_rng(0)
    matrix = draw.standard_normal((64, 32)).astype(np.float32)
    x = draw.standard_normal((200, 64)).astype(np.float32)
    x[:, 5] *= 300
    factor = least_error({"w": x})(site(matrix, x))
    assert factor[5] > 5 * np.median(factor)
    loud = matrix.copy()
    loud[7] *= 300  # the weights' fault: turning the channel up takes it from them
    assert least_error({"w": x / 300})(site(loud, x / 300))[7] < np.median(factor)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (20, 16), elements=FINITE), arrays(np.float32, (16, 6), elements=FINITE))
def test_the_search_answers_positive_numbers_whatever_it_sees(x: Array, matrix: Array) -> None:
    for balance in (least_error({"w": x}), for_rounded_weights):
        found = balance(site(matrix, x))
        assert found.shape == (16,)
        assert np.isfinite(found).all()
        assert (found > 0).all()
