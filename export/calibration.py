"""What every linear layer is fed with over the shipped calibration text.

Smoothing and 4-bit rounding go by the squares of each channel, the search for the best smoothing tries a
sample of rows, and rounding that makes up for its own errors needs the channels' products with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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


SEEN = "seen/"  # how the probes' outputs are called, before the input that they show
SAMPLED = 7  # one row in so many is kept
TOKENS_A_CHANNEL = 2  # with fewer, products of channels say more of this text than of the model


@dataclass(frozen=True)
class Activations:
    """Of each linear layer's input, by the name of the layer's weight."""

    squares: dict[str, Array]  # sum of squares, float32 [in_features]
    rows: dict[str, Array]  # a sample, float32 [rows, in_features]
    grams: dict[str, Array]  # x^T x, float32 [in_features, in_features]; where text is enough


@dataclass(frozen=True)
class Site:
    """A linear layer that is looked at."""

    weight: str
    source: str  # its input
    channels: int


@dataclass(frozen=True)
class Run:
    """One run of a probed graph, with `rows` rows in every layer's input."""

    rows: int
    fill: Callable[[Mapping[str, Array]], None]  # fills outputs of the graph, by name


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
    with probing(slot_graph / GRAPH) as (probed, sites):
        runner = SlotRunner(slot_graph, slots=1, max_context=longest, threads=threads, graph=probed)
    runs = [Run(len(ids), partial(runner.score, 0, ids)) for ids in windows]
    return observe(sites, runs, out / CALIBRATION, progress)


@contextmanager
def probing(graph: Path) -> Iterator[tuple[str, list[Site]]]:
    """The name of a graph beside `graph`, for as long as the block runs, that shows its layers' inputs."""
    probed = graph.with_name(f"probed.{graph.name}")  # beside the weights that it shares
    try:
        yield probed.name, _probe(graph, probed)
    finally:
        probed.unlink(missing_ok=True)


def observe(sites: Sequence[Site], runs: Sequence[Run], path: Path, progress: Show) -> Path:
    """Write what the sites' layers are fed with in these runs into the file `path`."""
    seen = _observed(sites, runs, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    readers = {f"reader/{site.weight}": np.array(site.source) for site in sites}
    np.savez(path, **readers, **seen)  # type: ignore[arg-type]  # no allow_pickle among them
    return path


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


def _probe(graph: Path, probed: Path) -> list[Site]:
    """Write the graph with one more output per layer's input."""
    model = ir.load(graph)
    editor = Editor(model)
    last = list(model.graph)[-1]
    sites = [Site(layer.name, str(layer.source.name), layer.matrix().shape[0]) for layer in linears(model)]
    for layer in {layer.source: layer for layer in linears(model)}.values():
        channels = layer.matrix().shape[0]
        flat = editor.constant(f"probe.{channels}", np.array([-1, channels]))
        seen = editor.insert(last, "Reshape", layer.source, flat)
        seen.name, seen.type = f"{SEEN}{layer.source.name}", ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(seen)
    model.graph.sort()
    ir.save(model, probed)
    return sites


def _observed(sites: Sequence[Site], runs: Sequence[Run], progress: Show) -> dict[str, Array]:
    """The arrays of Activations by kind and input: "square/…", "row/…" and, with text enough, "gram/…"."""
    channels = {site.source: site.channels for site in sites}
    tokens = sum(run.rows for run in runs)
    found: dict[str, Array] = {}
    sampled: dict[str, list[Array]] = {source: [] for source in channels}
    for done, run in enumerate(runs):
        progress(done, len(runs))
        seen = {source: np.empty((run.rows, count), np.float32) for source, count in channels.items()}
        run.fill({f"{SEEN}{source}": rows for source, rows in seen.items()})
        for source, rows in seen.items():
            sampled[source].append(rows[::SAMPLED].copy())
            _add(found, f"square/{source}", (rows * rows).sum(axis=0))
            if tokens >= TOKENS_A_CHANNEL * channels[source]:
                _add(found, f"gram/{source}", rows.T @ rows)
    progress(len(runs), len(runs))
    return found | {f"row/{source}": np.concatenate(parts) for source, parts in sampled.items()}


def _add(total: dict[str, Array], name: str, array: Array) -> None:
    total[name] = total[name] + array if name in total else array
