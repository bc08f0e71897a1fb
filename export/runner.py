"""Runs a slot graph as the engine does: through its session, with static KV slots, in chunks and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basert.errors import BundleError, ExportError
from basert.manifest import Graph
from engines.sessions import SessionOptions, open_session
from export.checkpoint import first_line
from export.graph import GRAPH, Decoder, read_decoder

Array = np.ndarray[Any, Any]
Logits = np.ndarray[Any, np.dtype[np.float32]]


class SlotRunner:
    """One open slot graph. Not for serving: it knows no queue and samples nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        max_context: int,
        threads: int = 0,
        graph: str = GRAPH,
        decoder: Decoder | None = None,
    ) -> None:
        """decoder: what the graph is like, where the folder does not say it."""
        self.decoder = decoder or read_decoder(folder)
        self.max_context = min(max_context, self.decoder.max_context)
        description = Graph("decoder", "cpu", graph, self.decoder.inputs, self.decoder.outputs, [], [])
        options = SessionOptions(slots=slots, max_context=self.max_context, threads=threads)
        try:
            self._session = open_session(folder / graph, description, self.decoder.kv_cache, options)
        except BundleError as error:
            raise ExportError(f"The exported graph does not load: {first_line(error)}.") from error

    def cached(self, slot: int, tokens: int) -> Mapping[str, Array]:
        """What a slot's first tokens left in the cache, as engines.sessions.Session has it."""
        return self._session.cached(slot, tokens)

    def chunk(self, slot: int, ids: Sequence[int], past: int, rows: Sequence[int] | None = None) -> Logits:
        """Put `ids` behind the `past` tokens of a slot; float32 [rows, vocab], by default for every id."""
        chosen = list(range(len(ids)) if rows is None else rows)
        logits = np.empty((len(chosen), self.decoder.vocab_size), np.float32)
        self.run(slot, np.asarray([ids], np.int64), [past], chosen, {"logits": logits})
        return logits

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for slots 0, 1, …, which hold `lengths` tokens; float32 [slots, vocab]."""
        logits = np.empty((len(tokens), self.decoder.vocab_size), np.float32)
        rows = list(range(len(tokens)))
        self.run(0, np.asarray(tokens, np.int64)[:, None], lengths, rows, {"logits": logits})
        return logits

    def run(
        self, row: int, ids: Array, past: Sequence[int], rows: list[int], fetches: Mapping[str, Array]
    ) -> None:
        """ids [batch, chunk] behind `past` tokens each, from cache row `row` on; fills `fetches`."""
        self.bind(row, self.feeds(ids, past, rows), fetches)()

    def bind(self, row: int, feeds: Mapping[str, Array], fetches: Mapping[str, Array]) -> Callable[[], None]:
        """engines.sessions.Session's, with its own errors as ExportError."""
        step = self._session.bind(row, feeds, fetches)

        def run() -> None:
            try:
                step()
            except RuntimeError as error:  # onnxruntime's own
                raise ExportError(f"The exported graph does not run: {first_line(error)}.") from error

        return run

    def feeds(self, ids: Array, past: Sequence[int], rows: list[int]) -> dict[str, Array]:
        """The graph's inputs but for the cache."""
        ends = np.asarray(past, np.int32) + np.int32(ids.shape[1])
        return {
            "input_ids": ids,
            "seqlens_k": ends - np.int32(1),
            "total_seq": np.asarray(ends.max(), np.int32),
            "logits_idx": np.asarray(rows, np.int64),
        }


def chunks(ids: Sequence[int], size: int) -> Iterator[tuple[int, Sequence[int]]]:
    """(past, ids) of each chunk of at most `size`."""
    for start in range(0, len(ids), size):
        yield start, ids[start : start + size]
