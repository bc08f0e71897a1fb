"""The table of graph targets: which class runs which. A row's module loads only when a bundle needs it.

A session owns one loaded graph and the KV cache it works on; it knows its device and its runtime.
The runner above it knows neither: it hands over NumPy arrays and a row of the cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import Graph, KVCache

Arrays = Mapping[str, NDArray[Any]]

# target -> "module:what opens it"
TARGETS = {
    "cpu": "engines.sessions.cpu:CpuSession",
    "testing": "engines.sessions.testing:open_testing",
}


@dataclass(frozen=True)
class SessionOptions:
    """What an operator chooses when an engine starts."""

    slots: int  # rows of the KV cache
    max_context: int  # its length in tokens
    threads: int = 0  # 0: one per physical core this process may use
    spin: bool = True  # worker threads wait actively between operators of a step (never between steps)
    profile: str = ""  # the beginning of the path where the runtime writes a profile of its runs; "": none


class Session(Protocol):
    """One loaded graph and its KV cache of [slots, kv_heads, max_context, head_dim] per layer, K and V."""

    provider: str  # what runs it, as the runtime reports it

    def __init__(self, path: Path, kv: KVCache, options: SessionOptions) -> None:
        """Raises BundleError when the graph does not load, or loads on another provider than this class's."""

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        """A step over the cache rows [row, row + batch) that reads `feeds` and fills `fetches` in place.

        feeds: input_ids[batch, chunk] i64, seqlens_k[batch] i32, total_seq[] i32, logits_idx[rows] i64;
        fetches: any of next_token[rows] i64 and logits[rows, vocab] f32. The arrays must stay alive.
        """

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one cache row over another's."""

    def end_profile(self) -> Path:
        """Write the profile that was asked for, and say where. Raises BundleError where there is none."""

    def cached(self, row: int, length: int) -> Arrays:
        """Views of a row's first tokens, to read and to write: "{layer}.key" and "{layer}.value",
        [kv_heads, length, head_dim]."""


def open_session(path: Path, graph: Graph, kv: KVCache, options: SessionOptions) -> Session:
    """Open a graph with the class of its target. Raises BundleError for a target without a row."""
    if graph.target not in TARGETS:
        raise BundleError(
            f"This basert cannot run graphs for {graph.target!r}, only for {', '.join(TARGETS)}."
        )
    module, name = TARGETS[graph.target].split(":")
    session: Session = getattr(importlib.import_module(module), name)(path, kv, options)
    return session
