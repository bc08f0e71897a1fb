"""Runs a Whisper's two graphs as the engine does: windows to the listener, texts to slots that hear one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basert.errors import BundleError, ExportError
from basert.manifest import Graph
from engines.sessions import SessionOptions, open_session
from export.checkpoint import first_line
from export.encoders.runner import NO_CACHE
from export.runner import Array, SlotRunner
from export.speech.graph import GRAPH, read_listener


class ListenerRunner:
    """One open listener."""

    def __init__(self, folder: Path, *, target: str = "cpu", threads: int = 0, graph: str = GRAPH) -> None:
        self.listener = read_listener(folder)
        described = Graph("listener", target, graph, self.listener.inputs, self.listener.outputs)
        options = SessionOptions(slots=1, max_context=1, threads=threads)
        try:
            self._session = open_session(folder / graph, described, NO_CACHE, options)
        except BundleError as error:
            raise ExportError(f"The exported graph does not load: {first_line(error)}.") from error

    def listen(self, features: Array, more: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """features: float32 [rows, mels, 2 * frames]. Keys and values by the names of the graph's outputs.

        more: further outputs to fill.
        """
        rows = len(features)
        made: dict[str, Array] = {
            tensor.name: np.empty([rows, *map(int, tensor.shape[1:])], tensor.dtype)
            for tensor in self.listener.outputs
        }
        try:
            self._session.bind(0, {"features": np.ascontiguousarray(features)}, {**made, **(more or {})})()
        except RuntimeError as error:  # onnxruntime's own
            raise ExportError(f"The exported graph does not run: {first_line(error)}.") from error
        return made


class HearingRunner(SlotRunner):
    """A slot graph whose slots hear a window each."""

    def __init__(self, folder: Path, *, slots: int, max_context: int, **more: Any) -> None:
        super().__init__(folder, slots=slots, max_context=max_context, **more)
        self._cross: dict[str, Array] = {
            tensor.name: np.zeros([slots, *map(int, tensor.shape[1:])], tensor.dtype)
            for tensor in self.decoder.inputs
            if tensor.name.startswith("cross.")
        }
        self._aligns = any(tensor.name == "align_idx" for tensor in self.decoder.inputs)
        names = [tensor.name for tensor in self.decoder.outputs]
        self._kept = {name: name.replace("heard.", "cross.") for name in names if name.startswith("heard.")}

    def hear(self, slot: int, cross: Mapping[str, Array], window: int = 0) -> None:
        """What the slot's tokens are about from now on: window `window` of what the listener made."""
        for name, kept in self._cross.items():
            kept[slot] = cross[name][window]

    def run(
        self, row: int, ids: Array, past: Sequence[int], rows: list[int], fetches: Mapping[str, Array]
    ) -> None:
        """`fetches` may have the alignment of all rows."""
        feeds = self.feeds(ids, past, rows)
        if "alignment" in fetches:
            feeds["align_idx"] = feeds["logits_idx"]
        self.bind(row, feeds, fetches)()

    def bind(self, row: int, feeds: Mapping[str, Array], fetches: Mapping[str, Array]) -> Callable[[], None]:
        """The step hears what the slots from `row` on hear; nobody's alignment unless `feeds` say whose."""
        rows = slice(row, row + len(feeds["input_ids"]))
        cross = {name: kept[rows] for name, kept in self._cross.items()}
        kept = {name: cross[source] for name, source in self._kept.items()}
        nobody = {"align_idx": np.zeros(0, np.int64)} if self._aligns else {}
        return super().bind(row, {**nobody, **cross, **feeds}, {**kept, **fetches})
