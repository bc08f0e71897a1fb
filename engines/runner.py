"""Batch to bound buffers to logits and token ids. Knows shapes and addresses; no queue, no provider.

Each shape that occurs, (first row, rows, chunk, logits rows), gets its small input buffers and its binding
once. The large ones, the cache (the session's) and the logits, are allocated once and shared by all.

Batches with an adapter in a row go to a second session, over the same cache (engines.adapters).
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.adapters import Adapters
from engines.batch import Batch
from engines.factors import ROWS
from engines.hearing import ALIGN, ALIGNMENT, Hearing
from engines.sessions import Arrays, Session
from engines.units import Units

MOST_ADAPTED = 256  # bindings kept for batches with adapters: each stretch of units has its own


class Shape(NamedTuple):
    """What a binding is made for."""

    first: int  # cache row
    batch: int
    chunk: int
    rows: int  # of logits, or best tokens
    logits: bool
    aligned: int


class Output(NamedTuple):
    """What a run yielded, until the next run overwrites it."""

    tokens: NDArray[np.int64]  # [rows], or [chunk] of a batch that scores or verifies: the best next token
    logits: NDArray[np.float32] | None  # [rows or chunk, vocab], if the batch asked for them; behind them
    # [rows, vocab] after each row's sot, if it asked for these
    alignment: NDArray[np.float32] | None = None  # [len(batch.aligned), heads, frames], if there are any


@dataclass(frozen=True, slots=True)
class Step:
    """One shape's buffers and how to run it."""

    feeds: dict[str, NDArray[Any]]
    output: Output
    run: Callable[[], None]
    taken: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)  # by parts: feeds of adapters


class Runner:
    def __init__(
        self,
        session: Session,
        vocab_size: int,
        logits_rows: int,
        hearing: Hearing | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        """logits_rows: the most rows of logits that a batch may ask for. hearing: of a speech model."""
        self.run_seconds = 0.0  # inside the graphs, since the start
        self._hearing = hearing
        self._adapters = adapters
        self._session = session
        self._logits = np.empty((logits_rows, vocab_size), np.float32)
        self._aside: dict[int, dict[str, NDArray[Any]]] = {}  # row -> its first token's keys and values
        self._steps: dict[Shape, Step] = {}
        self._adapted: OrderedDict[tuple[Units, Shape], Step] = OrderedDict()  # the last one used is the last

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def listen_seconds(self) -> float:
        """Of run_seconds, those inside the listener."""
        return self._hearing.listener.seconds if self._hearing is not None else 0.0

    def end_profile(self) -> Path:
        """The file with the runtime's profile of every run so far. Raises BundleError when it keeps none."""
        return self._session.end_profile()

    def run(self, batch: Batch) -> Output:
        """Do the batch's moves, compute it, and return what its rows yielded."""
        self._prepare(batch)
        if batch.sound is not None:
            return self._hear(batch.first, batch.sound)
        step = self._step(batch)
        fill(step.feeds, batch)
        for parts, taken in step.taken.items():
            _take_units(taken, parts, batch)
        if step.output.alignment is not None:
            step.feeds[ALIGN][:] = step.feeds["logits_idx"][batch.aligned]
        started = time.perf_counter()
        step.run()
        self.run_seconds += time.perf_counter() - started
        return step.output

    def _hear(self, row: int, sound: bytes) -> Output:
        assert self._hearing is not None
        before = self.listen_seconds
        self._hearing.listener.hear(row, sound)
        self.run_seconds += self.listen_seconds - before
        return Output(np.zeros(1, np.int64), None)

    def cached(self, row: int, length: int) -> Arrays:
        """Views of a row's first tokens, see Session.cached."""
        return self._session.cached(row, length)

    def mend(self, row: int, source: int | None = None) -> None:
        """Write the first token that a row had, or that `source` had, when it was put aside."""
        aside = self._aside[row if source is None else source]
        for name, view in self.cached(row, 1).items():
            view[...] = aside[name]

    def _prepare(self, batch: Batch) -> None:
        for source, target, length, torn, heard in batch.moves:
            if source != target:
                self._session.move(source, target, length)
            if heard and self._hearing is not None:
                self._hearing.listener.copy(source, target)
            if torn:
                self.mend(target, source)
        for row in batch.aside:
            self._aside[row] = {name: view.copy() for name, view in self.cached(row, 1).items()}

    def _step(self, batch: Batch) -> Step:
        rows = batch.chunk if batch.score or batch.verifies else len(batch.rows)
        aligned = 0
        if self._hearing is not None:
            rows, aligned = rows * (1 + batch.asks_sot), len(batch.aligned)
        shape = Shape(batch.first, len(batch.rows), batch.chunk, rows, batch.logits, aligned)
        if (units := batch.units).end:
            return self._adapted_step(units, shape)
        if shape not in self._steps:
            self._steps[shape] = self._bind(self._session, shape, {})
        return self._steps[shape]

    def _adapted_step(self, units: Units, shape: Shape) -> Step:
        assert self._adapters is not None
        assert self._adapters.session is not None
        key = units, shape
        if key not in self._adapted:
            factors = self._adapters.factors
            taken = {
                parts: np.zeros((units.length * parts, shape.batch), np.float32) for parts in factors.parts
            }
            more = factors.views(units) | {f"{ROWS}{parts}": array for parts, array in taken.items()}
            step = self._bind(self._adapters.session, shape, more)
            self._adapted[key] = dataclasses.replace(step, taken=taken)
            if len(self._adapted) > MOST_ADAPTED:
                self._adapted.popitem(last=False)
        self._adapted.move_to_end(key)
        return self._adapted[key]

    def _bind(self, session: Session, shape: Shape, more: Arrays) -> Step:
        first, batch, chunk, rows, logits, aligned = shape
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": np.zeros((batch, chunk), np.int64),
            "seqlens_k": np.zeros(batch, np.int32),
            "total_seq": np.zeros((), np.int32),
            "logits_idx": np.arange(rows),  # of a batch that decodes, scores or verifies, these stay
            **more,
        }
        fetches: dict[str, NDArray[Any]] = {"next_token": np.zeros(rows, np.int64)}
        if logits:
            fetches["logits"] = self._logits[:rows]
        if self._hearing is not None:
            feeds |= self._hearing.feeds(first, batch, aligned)
            fetches |= self._hearing.fetches(first, batch, aligned)
        output = Output(fetches["next_token"], fetches.get("logits"), fetches.get(ALIGNMENT))
        return Step(feeds, output, session.bind(first, feeds, fetches))


def fill(feeds: dict[str, NDArray[Any]], batch: Batch) -> None:
    """Write a batch into input buffers of its shape.

    seqlens_k is past + new - 1. Behind a past, padding counts as new: it is computed like any token, and
    what it leaves in the cache lies beyond the sequence's end, to be overwritten.
    """
    rows, chunk = batch.rows, batch.chunk
    feeds["total_seq"][...] = max(row.past for row in rows) + chunk
    if chunk == 1:
        feeds["input_ids"][:, 0] = [row.tokens[0] for row in rows]
        feeds["seqlens_k"][:] = [row.past for row in rows]
        return
    ids = feeds["input_ids"]
    ids[:] = 0
    for i, row in enumerate(rows):
        ids[i, : len(row.tokens)] = row.tokens
        feeds["seqlens_k"][i] = row.past + (chunk if row.past else len(row.tokens)) - 1
        if not (batch.score or batch.verifies):
            feeds["logits_idx"][i] = i * chunk + len(row.tokens) - 1
            feeds["logits_idx"][len(rows) + i :: len(rows)] = i * chunk + max(
                row.sot, 0
            )  # if it is asked for


def _take_units(taken: NDArray[np.float32], parts: int, batch: Batch) -> None:
    """taken: [units * parts, rows]"""
    taken[...] = 0
    start = batch.units.first
    for i, row in enumerate(batch.rows):
        if row.sequence is not None and row.sequence.adapter is not None:
            first, end = row.sequence.adapter.units
            taken[(first - start) * parts : (end - start) * parts, i] = 1
