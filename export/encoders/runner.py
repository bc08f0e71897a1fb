"""Runs an encoder graph as the engine does: through its session, rows padded on the right to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError, ExportError
from basert.manifest import Graph, KVCache
from engines.sessions import SessionOptions, open_session
from export.checkpoint import first_line
from export.encoders.graph import GRAPH, read_encoder

Values = NDArray[np.float32]
NO_CACHE = KVCache("float32", [], [])


@dataclass(frozen=True)
class Input:
    """A text, or a pair of texts, as token ids with their special tokens."""

    ids: list[int]
    types: list[int]  # as long as ids

    def __len__(self) -> int:
        return len(self.ids)


class EncoderRunner:
    """One open encoder graph. Not for serving: it knows no queue and no buckets."""

    def __init__(self, folder: Path, *, target: str = "cpu", threads: int = 0, graph: str = GRAPH) -> None:
        self.graph = read_encoder(folder)
        described = Graph("encoder", target, graph, self.graph.inputs, self.graph.outputs)
        options = SessionOptions(slots=1, max_context=self.graph.encoder.max_tokens, threads=threads)
        try:
            self._session = open_session(folder / graph, described, NO_CACHE, options)
        except BundleError as error:
            raise ExportError(f"The exported graph does not load: {first_line(error)}.") from error

    def encode(self, inputs: Sequence[Input], tokens: int = 0, padding: int = 0) -> Values:
        """float32 [inputs, width]. tokens: the length to pad to; 0: the longest's. padding: its id."""
        values = np.empty((len(inputs), self.graph.encoder.width), np.float32)
        self.run(self.feeds(inputs, tokens, padding), {"values": values})
        return values

    def feeds(self, inputs: Sequence[Input], tokens: int = 0, padding: int = 0) -> dict[str, NDArray[Any]]:
        """The graph's inputs, int64 [inputs, tokens] each."""
        shape = len(inputs), tokens or max(len(one) for one in inputs)
        ids, mask, types = (
            np.full(shape, padding, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
        )
        for row, one in enumerate(inputs):
            ids[row, : len(one)] = one.ids
            types[row, : len(one)] = one.types
            mask[row, : len(one)] = 1
        found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {tensor.name: found[tensor.name] for tensor in self.graph.inputs}

    def run(self, feeds: dict[str, NDArray[Any]], fetches: Mapping[str, NDArray[Any]]) -> None:
        """Fills `fetches`, outputs of the graph by name."""
        try:
            self._session.bind(0, feeds, fetches)()
        except RuntimeError as error:  # onnxruntime's own
            raise ExportError(f"The exported graph does not run: {first_line(error)}.") from error
