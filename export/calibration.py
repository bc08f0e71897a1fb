"""What every linear layer is fed with over the shipped calibration text.

Smoothing and 4-bit rounding go by the squares of each channel, the search for the best smoothing tries a
sample of rows, and rounding that makes up for its own errors needs the channels' products with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from basert.progress import Show
from export import prose
from export.checkpoint import token_ids
from export.graph import GRAPH, read_decoder
from export.passes.anatomy import Linear, linears
from export.passes.editing import Editor
from export.runner import SlotRunner, chunks

CALIBRATION = "calibration.npz"
WINDOW = 256  # tokens of context

Array = np.ndarray[Any, np.dtype[np.float32]]


SEEN = "seen/"  # how the probes' outputs are called, before the input that they show
SAMPLED = 7  # one row in so many is kept
TOKENS_A_CHANNEL = 2  # with fewer, products of channels say more of this text than of the model


@dataclass(frozen=True)
class Activations:
    """Of each linear layer's input, by the name of the layer's weight."""

    squares: dict[str, Array]  # sum of squares, float32 [in_features]
    rows: dict[str, Array]  # a sample, float32 [rows, in_features]
    grams: dict[str, Array]  # x^T x, float32 [in_features, in_features]; where text is enough


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
    longest = max(len(ids) for ids in windows)

    def open_probed(graph: str) -> Fill[list[int]]:
        runner = SlotRunner(slot_graph, slots=1, max_context=longest, threads=threads, graph=graph)
        return lambda ids, fetches: runner.run(
            0, np.asarray([ids], np.int64), [0], list(range(len(ids))), fetches
        )

    return observe(slot_graph / GRAPH, linears, open_probed, windows, out, progress)


W = TypeVar("W", bound=Sized)
Fill = Callable[[W, Mapping[str, Array]], None]
"""Runs a window through a probed graph, fills arrays with what its probes saw, [len(window), channels]."""


def observe(
    graph: Path,
    layers: Callable[[ir.Model], list[Linear]],
    open_probed: Callable[[str], Fill[W]],
    windows: Sequence[W],
    out: Path,
    progress: Show,
    *,
    tokens_a_channel: float = TOKENS_A_CHANNEL,
) -> Path:
    """What the layers of a graph are fed with over `windows`, of which each is a run; out / CALIBRATION.

    open_probed: opens the graph of that name beside `graph`, which has an output for each probe as well.
    """
    probed = graph.parent / "probed.onnx"  # beside the weights that it shares
    sites = _probe(graph, probed, layers)
    try:
        fill = open_probed(probed.name)
    finally:
        probed.unlink()
    seen = _observe(fill, sites, windows, progress, tokens_a_channel)
    out.mkdir(parents=True, exist_ok=True)
    readers = {f"reader/{weight}": np.array(source) for weight, source, _ in sites}
    np.savez(out / CALIBRATION, **readers, **seen)  # type: ignore[arg-type]  # no allow_pickle among them
    return out / CALIBRATION


def read_calibration(path: Path) -> Activations:
    with np.load(path) as arrays:
        readers = {n.removeprefix("reader/"): str(arrays[n]) for n in arrays if n.startswith("reader/")}
        by_source = {n: arrays[n] for n in arrays if not n.startswith("reader/")}
    squares, rows, grams = (
        {weight: by_source[name] for weight, name in _of(kind, readers).items() if name in by_source}
        for kind in ("square", "row", "gram")
    )
    return Activations(squares, rows, grams)


def _of(kind: str, readers: dict[str, str]) -> dict[str, str]:
    return {weight: f"{kind}/{source}" for weight, source in readers.items()}


def _probe(
    graph: Path, probed: Path, layers: Callable[[ir.Model], list[Linear]]
) -> list[tuple[str, str, int]]:
    """Write the graph with one more output per layer's input; (weight, input, channels) of each layer."""
    model = ir.load(graph)
    editor = Editor(model)
    last = list(model.graph)[-1]
    found = layers(model)
    sites = [(layer.name, str(layer.source.name), layer.matrix().shape[0]) for layer in found]
    for layer in {layer.source: layer for layer in found}.values():
        channels = layer.matrix().shape[0]
        flat = editor.constant(f"probe.{channels}", np.array([-1, channels]))
        seen = editor.insert(last, "Reshape", layer.source, flat)
        seen.name, seen.type = f"{SEEN}{layer.source.name}", ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(seen)
    model.graph.sort()
    ir.save(model, probed)
    return sites


def _observe(
    fill: Fill[W],
    sites: list[tuple[str, str, int]],
    windows: Sequence[W],
    progress: Show,
    tokens_a_channel: float,
) -> dict[str, Array]:
    """The arrays of Activations by kind and input: "square/…", "row/…" and, with text enough, "gram/…"."""
    channels = {source: count for _, source, count in sites}
    tokens = sum(len(ids) for ids in windows)
    found: dict[str, Array] = {}
    sampled: dict[str, list[Array]] = {source: [] for source in channels}
    for done, ids in enumerate(windows):
        progress(done, len(windows))
        seen = {source: np.empty((len(ids), count), np.float32) for source, count in channels.items()}
        fill(ids, {f"{SEEN}{source}": rows for source, rows in seen.items()})
        for source, rows in seen.items():
            sampled[source].append(rows[::SAMPLED].copy())
            _add(found, f"square/{source}", (rows * rows).sum(axis=0))
            if tokens >= tokens_a_channel * channels[source]:
                _add(found, f"gram/{source}", rows.T @ rows)
    progress(len(windows), len(windows))
    return found | {f"row/{source}": np.concatenate(parts) for source, parts in sampled.items()}


def _add(total: dict[str, Array], name: str, array: Array) -> None:
    total[name] = total[name] + array if name in total else array
