"""Numbers that encoders answer, as requests want them: cut, normalised, compared, scored, written.

Knows arrays and how JSON writes them; no text, no model, no HTTP. Imported only where an encoder is served: a
server of chat models alone need not pay for numpy.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

Table = NDArray[np.float32]  # [inputs, width]
Scores = NDArray[np.float64]  # [inputs, labels]

SLICE = 16_384  # numbers written in one go: half a millisecond


def empty(rows: int, width: int) -> Table:
    return np.empty((rows, width), np.float32)


def fill(table: Table, rows: Sequence[int], data: bytes) -> None:
    """Put an engine's answer, float32 little-endian [len(rows), width], where it belongs."""
    table[rows] = np.frombuffer(data, "<f4").reshape(len(rows), table.shape[1])


def cut(table: Table, width: int, *, normalise: bool) -> Table:
    """The first `width` numbers of each row, made of length 1 if wanted; rows of zeros stay so."""
    table = table[:, :width]
    if not normalise:
        return table
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.where(lengths > 0, lengths, 1), np.float32)


def similarities(one: Table, other: Table, measure: str) -> list[float]:
    """Of row i to row i; a table of one row is compared with all. measure: "cosine" | "dot"."""
    if measure == "cosine":
        one, other = (cut(table, table.shape[1], normalise=True) for table in (one, other))
    products: list[float] = (one.astype(np.float64) * other).sum(axis=1).tolist()
    return products


def scores(logits: Table, activation: str) -> Scores:
    """What logits mean. activation: "sigmoid" | "softmax" | "none"."""
    values = logits.astype(np.float64)
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0.0, -values))
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return values


def as_floats(row: Table) -> bytes:
    """A JSON array with the shortest numbers that are the same float32."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def as_base64(row: Table) -> bytes:
    """A JSON string: base64 of float32, little-endian."""
    return b'"' + binascii.b2a_base64(row.astype("<f4", copy=False).tobytes(), newline=False) + b'"'


def written(
    table: Table, write: Callable[[Table], bytes], width: int, *, normalise: bool
) -> Iterator[list[bytes]]:
    """The rows, cut, as JSON, a slice at a time: whoever waits between two slices holds nobody up."""
    step = max(1, SLICE // table.shape[1])
    for start in range(0, len(table), step):
        rows = cut(table[start : start + step], width, normalise=normalise)
        yield [write(row) for row in np.ascontiguousarray(rows)]
