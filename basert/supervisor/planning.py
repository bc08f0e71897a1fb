"""Whether a model's engines find room: what they may take at most, and what this machine still has.

Knows manifests, settings and the kernel's accounts; starts nothing and stops nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from basert import cpus
from basert.config import ServeConfig
from basert.errors import Conflict
from basert.manifest import Graph, Manifest, Tensor
from basert.progress import amount

MEMINFO = Path("/proc/meminfo")
# What an engine takes beside its weights and its cache: the interpreter with the runtime, and per row of a
# batch the logits, a copy of them while they are drawn from, and what the graph holds between two operators.
RUNTIME_BYTES = 120 << 20
ROW_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """Bytes that all engines of a model together take at most. Every provider here computes in `device`."""

    weights: int
    cache: int  # keys and values, every slot full
    workspace: int
    device: str = "main memory"

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.workspace

    def shown(self) -> str:
        parts = [(self.weights, "weights"), (self.cache, "keys and values"), (self.workspace, "workspace")]
        told = ", ".join(f"{amount(size, 'B')} {what}" for size, what in parts)
        return f"{amount(self.total, 'B')} ({told})"


def planned(manifest: Manifest, config: ServeConfig, adapters: Sequence[int] = ()) -> Plan:
    """What config.replicas engines of a bundle take. adapters: bytes of the file of each that they have."""
    slots = (config.continuous_batching or manifest.slots) if manifest.kv_cache.layers else manifest.slots
    cache = slots * _slot_bytes(
        manifest, min(config.max_context or manifest.max_context, manifest.max_context)
    )
    rows = max(slots, *(rows for graph in manifest.graphs for rows, _ in graph.shapes), 1)
    workspace = RUNTIME_BYTES + rows * (ROW_BYTES + 2 * 4 * manifest.vocab_size)
    weights = _weights(manifest, config.provider)
    if adapters:  # their graph has the weights once more
        weights = 2 * weights + sum(adapters)
    each = (weights, cache, workspace)
    weights, cache, workspace = (config.replicas * size for size in each)
    return Plan(weights, cache, workspace)


def check_room(name: str, plan: Plan, promised: int) -> None:
    """Raises Conflict, with the numbers, when the plan does not fit.

    promised: bytes that engines which run already may still come to take.
    """
    free = available()
    if plan.total > free - promised:
        less = (
            f", of which the models that are loaded may still take {amount(promised, 'B')}"
            if promised
            else ""
        )
        raise Conflict(
            f"{name} needs up to {plan.shown()} of {plan.device}, and {amount(free, 'B')} are free{less}; "
            "unload another model, or serve with a smaller --continuous-batching or --max-context.",
            param="model",
            code="no_room",
        )


def check_adapter(name: str, more: int) -> None:
    """Raises Conflict when an adapter takes more bytes than there are."""
    if more > (free := available()):
        raise Conflict(
            f"The adapter {name} needs up to {amount(more, 'B')} of main memory, and {amount(free, 'B')} are "
            "free; unload another adapter, or a model.",
            param="lora",
            code="no_room",
        )


def available() -> int:
    """Bytes that processes of this control group can still have without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    host = int(found[1]) << 10 if found else 1 << 62
    return max(0, min([host, *map(_left_in, cpus.control_groups())]))


def _left_in(group: Path) -> int:
    """Of the limit of a control group; what the kernel can drop from its page cache counts as free."""
    try:
        limit, current = (int((group / f"memory.{what}").read_text()) for what in ("max", "current"))
        droppable = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # there is none ("max"), or no such account
        return 1 << 62
    return limit - current + (int(droppable[1]) if droppable else 0)


def _weights(manifest: Manifest, provider: str | None) -> int:
    """Of each role the graph for that provider, or the largest: with "auto" they are tried, one by one."""
    size = {file.path: file.bytes for file in manifest.files}
    largest: dict[str, int] = {}
    for graph in manifest.graphs:
        if provider in (None, "auto", graph.target) or not _has(manifest, graph.role, provider):
            found = size.get(graph.path, 0) + size.get(f"{graph.path}.data", 0)
            largest[graph.role] = max(found, largest.get(graph.role, 0))
    return sum(largest.values())


def _has(manifest: Manifest, role: str, provider: str | None) -> bool:
    return any(graph.role == role and graph.target == provider for graph in manifest.graphs)


def _slot_bytes(manifest: Manifest, context: int) -> int:
    """Of one sequence: what it said, and what a speech model's has heard."""
    kv = manifest.kv_cache
    said = 2 * context * sum(map(prod, zip(kv.kv_heads, kv.head_dim, strict=True))) * _item_bytes(kv.dtype)
    return said + _heard(manifest.graphs)


def _heard(graphs: Iterable[Graph]) -> int:
    return max(
        (sum(map(_row_bytes, graph.outputs)) for graph in graphs if graph.role == "listener"), default=0
    )


def _row_bytes(tensor: Tensor) -> int:
    return _item_bytes(tensor.dtype) * prod(side for side in tensor.shape if isinstance(side, int))


def _item_bytes(dtype: str) -> int:
    """Of numpy's name for it, which ends in its bits ("int8", "float32")."""
    bits = re.search(r"\d+$", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1
