"""Rounds weights to 4 and 8 bits in blocks of input channels, in MatMulNBits' layout. Knows no graph.

    weight ≈ (q - zero) * scale,  one float32 scale and one 4-bit zero per BLOCK inputs of an output column

Round-to-nearest over the whole range of a block wastes steps on outliers. Here each block tries narrower
ranges, refits its scale by least squares, and keeps what hurts the layer's output least, each input channel
weighing as much as calibration saw of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 32
LEVELS = 15  # of 4 bits, above zero
RANGES = np.linspace(0.7, 1.05, 12)  # parts of a block's range that are tried
COLUMNS = 128  # rounded at once, so that what is tried stays in the CPU's cache

Array = np.ndarray[Any, Any]


def four_bits(matrix: Array, squares: Array) -> tuple[Array, Array, Array]:
    """float32 [in, out] -> uint8 [out, blocks, BLOCK / 2], scales float32 [out * blocks], packed zeros.

    `squares`: mean or sum of squares of each input channel, float32 [in].
    """
    blocks, importance = _blocks(matrix), _weights(squares)
    parts = [_search(blocks[at : at + COLUMNS], importance) for at in range(0, len(blocks), COLUMNS)]
    q, scale, zero = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _pack(q), scale.reshape(-1), _pack(zero)


def _search(blocks: Array, importance: Array) -> tuple[Array, Array, Array]:
    """Steps uint8 [out, blocks, BLOCK], scale float32 and zero uint8 [out, blocks] of the least error."""
    least = np.full(blocks.shape[:2], np.inf, np.float32)
    best = np.zeros_like(blocks, np.uint8), np.ones_like(least), np.zeros(least.shape, np.uint8)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    for part in RANGES:
        scale = np.maximum((high - low) * np.float32(part / LEVELS), np.float32(1e-10))
        zero = np.clip(np.rint(-low * np.float32(part) / scale), 0, LEVELS)
        scale = _refit(blocks, _rounded(blocks, scale, zero) - zero[..., None], importance, scale)
        q = _rounded(blocks, scale, zero)
        error = (importance * (blocks - (q - zero[..., None]) * scale[..., None]) ** 2).sum(-1)
        better = error < least
        least = np.where(better, error, least)
        for kept, tried in zip(best, (q, scale, zero), strict=True):
            np.copyto(kept, tried.astype(kept.dtype), where=better[..., None] if kept.ndim == 3 else better)
    return best


def eight_bits(rows: Array) -> tuple[Array, Array]:
    """float32 [out, in] -> uint8 [out, in] about 128, scales float32 [out, blocks]; BLOCK divides `in`."""
    blocks = rows.reshape(rows.shape[0], -1, BLOCK)
    scale = np.maximum(np.abs(blocks).max(-1) / 127, 1e-12).astype(np.float32)
    return (np.rint(blocks / scale[..., None]) + 128).astype(np.uint8).reshape(rows.shape), scale


def _blocks(matrix: Array) -> Array:
    """float32 [out, blocks, BLOCK]; missing inputs are zero."""
    columns = np.pad(matrix.T, ((0, 0), (0, -matrix.shape[0] % BLOCK)))
    return np.reshape(columns, (columns.shape[0], -1, BLOCK))


def _weights(squares: Array) -> Array:
    """float32 [blocks, BLOCK], never quite zero: a channel that calibration did not see may still matter."""
    padded = np.pad(squares, (0, -squares.size % BLOCK)).reshape(-1, BLOCK)
    return (padded / max(float(squares.mean()), 1e-20) + 1e-2).astype(np.float32)


def _rounded(blocks: Array, scale: Array, zero: Array) -> Array:
    return np.asarray(np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, LEVELS))


def _refit(blocks: Array, steps: Array, importance: Array, scale: Array) -> Array:
    """The scale with the least weighted square error for these steps; where all are zero, as it was."""
    weighted = importance * steps
    divisor = (weighted * steps).sum(-1)
    fitted = (weighted * blocks).sum(-1) / np.maximum(divisor, 1e-20)
    return np.asarray(np.where((divisor > 0) & (fitted > 0), fitted, scale), np.float32)


def _pack(values: Array) -> Array:
    """Two 4-bit values to a byte, the first one low, along the last axis."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << 4), np.uint8)
