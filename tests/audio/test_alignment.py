from __future__ import annotations

from functools import cache

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from basert.audio.alignment import score, token_starts, warp


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_path_is_that_of_transformers(rows: int, columns: int, seed: int) -> None:
    cost = -np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    for ours, theirs in zip(warp(cost), _dynamic_time_warping(cost), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=5))
def test_no_path_is_cheaper(cells: list[list[int]]) -> None:
    """Whole numbers, so that there are ties: paths that cost the same."""
    rows, columns = warp(np.array(cells, np.float32))
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, len(cells) - 1, 4)
    assert sum(cells[row][column] for row, column in zip(rows, columns, strict=True)) == cheapest(cells)


def cheapest(cells: list[list[int]]) -> float:
    @cache
    def upto(row: int, column: int) -> float:
        if row < 0 or column < 0:
            return float("inf")
        before = [upto(row - 1, column - 1), upto(row - 1, column), upto(row, column - 1)]
        return cells[row][column] + (0 if row == column == 0 else min(before))

    return upto(len(cells) - 1, len(cells[0]) - 1)


def test_scores_are_those_of_transformers() -> None:
    for frames in (2, 3, 4, 150):
        attention = torch.rand(4, 12, frames, generator=torch.Generator().manual_seed(1)).softmax(-1)
        std, mean = torch.std_mean(attention, dim=-2, keepdim=True, unbiased=False)
        theirs = _median_filter((attention - mean) / std, 7).mean(dim=0)
        np.testing.assert_allclose(score(attention.numpy()), theirs.numpy(), atol=1e-4)


def test_attention_that_moves_along_gives_its_times() -> None:
    """Ten tokens, each heard over twenty frames of its own."""
    frames, tokens = np.arange(200), np.arange(10)
    one = np.exp(-(((frames[None] - (20 * tokens[:, None] + 10)) / 8.0) ** 2)).astype(np.float32)
    noisy = one + 0.05 * np.random.default_rng(2).random((3, 10, 200), np.float32)
    starts = token_starts(noisy / noisy.sum(-1, keepdims=True))
    np.testing.assert_allclose(starts, tokens * 0.4, atol=0.08)


def test_attention_without_any_contrast() -> None:
    starts = token_starts(np.full((2, 5, 40), 1 / 40, np.float32))
    assert np.isfinite(starts).all()
    assert (np.diff(starts) >= 0).all()
