"""Runs a slot graph the way the engine does: the engine's own session, static KV slots, chunks and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basert.manifest import Graph
from engines.sessions import SessionOptions, open_session
from export.graph import GRAPH, read_decoder

Logits = np.ndarray[Any, np.dtype[np.float32]]


class SlotRunner:
    """One open slot graph. Not for serving: it knows no queue, and every call returns logits."""

    def __init__(self, folder: Path, *, slots: int, max_context: int, threads: int = 0) -> None:
        self.decoder = read_decoder(folder)
        self.max_context = min(max_context, self.decoder.max_context)
        graph = Graph(
            "decoder", "cpu", GRAPH, self.decoder.inputs, self.decoder.outputs, [slots], [self.max_context]
        )
        options = SessionOptions(slots=slots, max_context=self.max_context, threads=threads)
        self._session = open_session(folder / GRAPH, graph, self.decoder.kv_cache, options)

    def chunk(self, slot: int, ids: Sequence[int], past: int, rows: Sequence[int] | None = None) -> Logits:
        """Put `ids` behind the `past` tokens of a slot; float32 [rows, vocab], by default for every id."""
        chosen = range(len(ids)) if rows is None else rows
        return self._run(slot, np.asarray([ids], np.int64), [past], list(chosen))

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for slots 0, 1, …, which hold `lengths` tokens; float32 [slots, vocab]."""
        return self._run(0, np.asarray(tokens, np.int64)[:, None], lengths, list(range(len(tokens))))

    def prefill(self, slot: int, ids: Sequence[int], chunk: int) -> Logits:
        """A whole prompt in chunks; the last position's logits, float32 [vocab]."""
        last: Logits | None = None
        for past, part in chunks(ids, chunk):
            last = self.chunk(slot, part, past, rows=[len(part) - 1])[0]
        assert last is not None
        return last

    def _run(self, row: int, ids: Any, past: Sequence[int], rows: list[int]) -> Logits:
        ends = np.asarray(past, np.int32) + np.int32(ids.shape[1])
        feeds = {
            "input_ids": ids,
            "seqlens_k": ends - np.int32(1),
            "total_seq": np.asarray(ends.max(), np.int32),
            "logits_idx": np.asarray(rows, np.int64),
        }
        logits = np.empty((len(rows), self.decoder.vocab_size), np.float32)
        self._session.bind(row, feeds, {"logits": logits})()
        return logits


def chunks(ids: Sequence[int], size: int) -> Iterator[tuple[int, Sequence[int]]]:
    """(past, ids) of each chunk of at most `size`."""
    for start in range(0, len(ids), size):
        yield start, ids[start : start + size]
