"""What every linear layer is fed with, channel by channel, over the shipped calibration text.

SmoothQuant balances weights against the maxima, 4-bit rounding weighs errors with the mean squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from basert.progress import Show
from export import prose
from export.checkpoint import token_ids
from export.graph import GRAPH, read_decoder
from export.passes.anatomy import linears
from export.passes.editing import Editor
from export.runner import SlotRunner, chunks

CALIBRATION = "calibration.npz"
WINDOW = 256  # tokens of context

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Activations:
    """Of each linear layer's input, by the name of the layer's weight: float32 [in_features]."""

    maxima: dict[str, Array]  # largest absolute value
    squares: dict[str, Array]  # sum of squares


def calibrate(checkpoint: Path, slot_graph: Path, out: Path, progress: Show, *, threads: int = 0) -> Path:
    """Run the fp32 slot graph in folder `slot_graph` over the calibration text; returns out / CALIBRATION.

    `checkpoint` gives the tokenizer.
    """
    return calibrate_ids(_windows(checkpoint, slot_graph), slot_graph, out, progress, threads=threads)


def _windows(checkpoint: Path, slot_graph: Path) -> list[list[int]]:
    window = min(WINDOW, read_decoder(slot_graph).max_context)
    return [list(part) for _, part in chunks(token_ids(checkpoint, prose.calibration()), window)]


def cache_maxima(checkpoint: Path, slot_graph: Path, progress: Show, *, threads: int = 0) -> dict[str, Array]:
    """Largest absolute values in the KV cache of the graph in folder `slot_graph`, whatever its variant.

    By "{layer}.key" (rotated) and "{layer}.value": float32 [kv_heads, head_dim].
    """
    return cache_maxima_ids(_windows(checkpoint, slot_graph), slot_graph, progress, threads=threads)


def cache_maxima_ids(
    windows: list[list[int]], slot_graph: Path, progress: Show, *, threads: int = 0
) -> dict[str, Array]:
    """`cache_maxima` over token ids of one's own."""
    longest = max(len(ids) for ids in windows)
    runner = SlotRunner(slot_graph, slots=1, max_context=longest, threads=threads)
    total: dict[str, Array] = {}
    for done, ids in enumerate(windows):
        progress(done, len(windows))
        runner.chunk(0, ids, 0, rows=[0])
        for name, array in runner.cached(0, len(ids)).items():
            total[name] = np.maximum(np.abs(array).max(axis=1), total.get(name, 0))
    progress(len(windows), len(windows))
    return total


def calibrate_ids(
    windows: list[list[int]], slot_graph: Path, out: Path, progress: Show, *, threads: int = 0
) -> Path:
    """`calibrate` over token ids of one's own; each window is a sequence by itself."""
    probed = slot_graph / "probed.onnx"  # beside the weights that it shares
    sites = _probe(slot_graph / GRAPH, probed)
    try:
        longest = max(len(ids) for ids in windows)
        runner = SlotRunner(slot_graph, slots=1, max_context=longest, threads=threads, graph=probed.name)
    finally:
        probed.unlink()
    seen = _observe(runner, sites, windows, progress)
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"max/{weight}": seen[f"max/{source}"] for weight, source, _ in sites}
    arrays |= {f"square/{weight}": seen[f"square/{source}"] for weight, source, _ in sites}
    np.savez(out / CALIBRATION, **arrays)
    return out / CALIBRATION


def read_calibration(path: Path) -> Activations:
    with np.load(path) as arrays:
        maxima = {name.removeprefix("max/"): arrays[name] for name in arrays if name.startswith("max/")}
        squares = {
            name.removeprefix("square/"): arrays[name] for name in arrays if name.startswith("square/")
        }
    return Activations(maxima, squares)


def _probe(graph: Path, probed: Path) -> list[tuple[str, str, int]]:
    """Write the graph with two more outputs per layer's input; (weight, input, channels) of each layer."""
    model = ir.load(graph)
    editor = Editor(model)
    last = list(model.graph)[-1]
    sites = [(layer.name, layer.source, layer.matrix().shape[0]) for layer in linears(model)]
    for source, channels in {source: channels for _, source, channels in sites}.items():
        flat = editor.insert(
            last, "Reshape", source, editor.constant(f"probe.{channels}", np.array([-1, channels]))
        )
        axes = editor.constant("probe.axes", np.array([0]))
        magnitude = editor.insert(last, "Abs", flat)
        for kind, value, op in (("max", magnitude, "ReduceMax"), ("square", flat, "ReduceSumSquare")):
            seen = editor.insert(last, op, value, axes, keepdims=0)
            seen.name, seen.type = f"{kind}/{source.name}", ir.TensorType(ir.DataType.FLOAT)
            model.graph.outputs.append(seen)
    model.graph.sort()
    ir.save(model, probed)
    return [(weight, str(source.name), channels) for weight, source, channels in sites]


def _observe(
    runner: SlotRunner, sites: list[tuple[str, str, int]], windows: list[list[int]], progress: Show
) -> dict[str, Array]:
    channels = {source: count for _, source, count in sites}
    kinds = {"max": np.maximum, "square": np.add}
    total = {
        f"{kind}/{source}": np.zeros(count, np.float32)
        for kind in kinds
        for source, count in channels.items()
    }
    for done, ids in enumerate(windows):
        progress(done, len(windows))
        seen = {name: np.empty_like(array) for name, array in total.items()}
        runner.run(0, np.asarray([ids], np.int64), [0], list(range(len(ids))), seen)
        for name, array in seen.items():
            kinds[name.split("/")[0]](total[name], array, out=total[name])
    progress(len(windows), len(windows))
    return total
