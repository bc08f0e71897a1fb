"""The matrix that turns the residual stream, and the graphs that cannot be turned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.passes.rotate import orthogonal


@given(st.integers(1, 160))
def test_it_is_orthogonal_and_the_same_every_time(size: int) -> None:
    q = orthogonal(size)
    assert q.dtype == np.float32
    assert np.abs(q @ q.T - np.eye(size)).max() < 1e-5
    assert np.array_equal(q, orthogonal(size))


@pytest.mark.parametrize("size", [64, 576, 640])
def test_it_spreads_one_loud_channel_over_all(size: int) -> None:
    assert np.abs(orthogonal(size)).max() < 4 / np.sqrt(size)
