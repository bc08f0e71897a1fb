"""Inputs to bound buffers to an encoder's answers. Knows shapes and addresses; no queue, no provider.

There are two sets of buffers, so that one can be filled while the other is in the graph. In a set all buckets
share the memory of the largest, and each has its binding from the start: no other shape is ever run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.buckets import Bucket
from engines.sessions import Session

SETS = 2

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bound:
    """One bucket in one set of buffers."""

    feeds: dict[str, NDArray[np.int64]]
    values: NDArray[np.float32]  # [rows, width]
    run: Callable[[], None]


class Row(NamedTuple):
    """An input."""

    ids: Ids  # [tokens]
    token_types: Ids | None = None


class EncoderRunner:
    def __init__(self, session: Session, buckets: Sequence[Bucket], width: int, names: Sequence[str]) -> None:
        """names: the graph's inputs, of input_ids, attention_mask and token_type_ids."""
        self.provider = session.provider
        self._sets = [_bind(session, buckets, width, names) for _ in range(SETS)]
        self._next = 0

    def fill(self, bucket: Bucket, rows: Sequence[Row]) -> Bound:
        """Write inputs into the set that was not the last to be filled; `rows` fit the bucket."""
        self._next = (self._next + 1) % SETS
        bound = self._sets[self._next][bucket]
        fill(bound.feeds, rows)
        return bound

    def encode(self, bucket: Bucket, rows: Sequence[Row]) -> NDArray[np.float32]:
        """The answers [len(rows), width], in a call: for checks. Nothing else may be running."""
        bound = self.fill(bucket, rows)
        bound.run()
        return bound.values[: len(rows)].copy()

    def time(self, bucket: Bucket) -> float:
        """Seconds that a run of a full bucket takes."""
        bound = self.fill(bucket, [Row(np.zeros(bucket.tokens, np.int64))] * bucket.rows)
        started = time.perf_counter()
        bound.run()
        return time.perf_counter() - started


def _bind(
    session: Session, buckets: Sequence[Bucket], width: int, names: Sequence[str]
) -> dict[Bucket, Bound]:
    memory = {name: np.zeros(max(bucket.size for bucket in buckets), np.int64) for name in names}
    values = np.zeros((max(bucket.rows for bucket in buckets), width), np.float32)
    bound = {}
    for bucket in buckets:
        feeds = {name: flat[: bucket.size].reshape(bucket) for name, flat in memory.items()}
        fetched = values[: bucket.rows]
        bound[bucket] = Bound(feeds, fetched, session.bind(0, feeds, {"values": fetched}))
    return bound


def fill(feeds: dict[str, NDArray[Any]], rows: Sequence[Row]) -> None:
    """Write inputs into buffers of a bucket, from its first row on. A row that nobody needs holds one token:
    one of padding alone would have no mean, and no attention."""
    ids, mask, types = feeds["input_ids"], feeds["attention_mask"], feeds.get("token_type_ids")
    lengths = np.ones(len(ids), np.int64)
    lengths[: len(rows)] = [len(row.ids) for row in rows]
    ids[...] = 0
    np.less(np.arange(ids.shape[1]), lengths[:, None], out=mask, casting="unsafe")
    for place, row in zip(ids, rows, strict=False):
        place[: len(row.ids)] = row.ids
    if types is not None:
        types[...] = 0
        for place, row in zip(types, rows, strict=False):
            if row.token_types is not None:
                place[: len(row.ids)] = row.token_types
