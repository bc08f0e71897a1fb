"""The table of graph targets: which class runs which. A row's module loads only when a bundle needs it.

A session owns one loaded graph and the KV cache it works on; it knows its device and its runtime.
The runner above it knows neither: it hands over NumPy arrays and a row of the cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import Graph, KVCache

if TYPE_CHECKING:
    from engines.compiled import Compiled

Arrays = Mapping[str, NDArray[Any]]

# target -> "module:what opens it"
TARGETS = {
    "openvino": "engines.sessions.openvino:OpenVinoSession",
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
    compiled: Compiled | None = None  # where what a runtime compiles is kept; None: nowhere


class Session(Protocol):
    """One loaded graph. A decoder's has a KV cache, [slots, kv_heads, max_context, head_dim] per layer and
    kind, K and V."""

    provider: str  # what runs it, as the runtime reports it

    def __init__(self, path: Path, kv: KVCache, options: SessionOptions) -> None:
        """An encoder's `kv` has no layers. Raises BundleError when the graph does not load, or loads on
        another provider than this class's."""

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        """A step that reads `feeds` and fills `fetches` in place; a decoder's, over the cache rows
        [row, row + batch). The arrays must stay alive; the step may run in any thread, one at a time.

        Decoder's feeds: input_ids[batch, chunk] i64, seqlens_k[batch] i32, total_seq[] i32,
        logits_idx[rows] i64, and engines.factors' if the graph takes adapters; fetches: any of
        next_token[rows] i64 and logits[rows, vocab] f32.
        Encoder's feeds: input_ids and attention_mask[rows, tokens] i64, token_type_ids[rows, tokens] i64 if
        the graph has them; fetches: values[rows, width] f32. Its row is 0.
        """

    def beside(self, path: Path, options: SessionOptions) -> Session:
        """Another decoder's graph over the same cache; any thread may open it. Raises BundleError."""

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one cache row over another's."""

    def end_profile(self) -> Path:
        """Write the profile that was asked for, and say where. Raises BundleError where there is none."""

    def cached(self, row: int, length: int) -> Arrays:
        """Views of a row's first tokens, to read and to write: "{layer}.key" and "{layer}.value",
        [kv_heads, length, head_dim]."""


def why_not(target: str) -> str:
    """Why graphs for this target cannot be run on this host, with the mend; "" if they can."""
    if target not in TARGETS:
        return f"this basert cannot run graphs for {target!r}, only for {', '.join(TARGETS)}"
    try:
        module, _ = _opener(target)
    except ImportError as error:
        return f"the runtime for {target!r} is not installed ({error}); choose another provider"
    return str(module.why_not()) if hasattr(module, "why_not") else ""


def open_session(path: Path, graph: Graph, kv: KVCache, options: SessionOptions) -> Session:
    """Open a graph as its target's row says. Raises BundleError for a target that this host cannot run."""
    if reason := why_not(graph.target):
        raise BundleError(f"{path} cannot be run here: {reason}.")
    module, name = _opener(graph.target)
    session: Session = getattr(module, name)(path, kv, options)
    return session


def _opener(target: str) -> tuple[ModuleType, str]:
    module, name = TARGETS[target].split(":")
    return importlib.import_module(module), name
