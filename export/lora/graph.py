"""The second graph of a decoder's bundle: the first with low-rank adapters, over the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from basert.manifest import Lora, LoraLayer, Tensor, write_json
from basert.progress import note
from export.graph import DATA, DECODER, GRAPH, Decoder, load, tensors
from export.passes.folds import FOLDS
from export.passes.lora import ROWS, UNIT, add_lora
from export.runner import SlotRunner
from export.workspace import link_or_copy, sha256_of

LORA_GRAPH = "decoder-lora.onnx"
LORA = "lora.json"
CHECKED = 24  # tokens of each of two rows

Array = np.ndarray[Any, Any]


class LoraGraph(msgspec.Struct, frozen=True):
    """What the manifest wants to know of it; no layers: this architecture takes no adapters."""

    base: str
    layers: list[LoraLayer]
    inputs: list[Tensor]
    outputs: list[Tensor]

    def manifest(self, folds: str) -> Lora | None:
        return Lora(self.base, UNIT, self.layers, folds) if self.layers else None


def build_lora_graph(compiled: Path, layers: Sequence[LoraLayer], out: Path) -> LoraGraph:
    """From a finished graph in folder `compiled`, write LORA_GRAPH, FOLDS and LORA into `out`.

    It is kept only if it answers without an adapter what the graph without adapters answers, to the bit.
    """
    model, _ = load(compiled)
    there = add_lora(model, list(layers))
    _save_over(model, compiled, out)
    base = sha256_of([compiled / GRAPH, compiled / DATA, compiled / FOLDS])
    made = LoraGraph(base, there, tensors(model.graph.inputs), tensors(model.graph.outputs))
    if not there or not _answers_alike(compiled, out, made):
        note("this model takes no adapters: not all of its layers are such as they can be added to")
        made = LoraGraph(base, [], [], [])
    write_json(out / LORA, made)
    return made


def read_lora_graph(folder: Path) -> LoraGraph:
    return msgspec.json.decode((folder / LORA).read_bytes(), type=LoraGraph)


class LoraRunner(SlotRunner):
    """Runs such a graph with one adapter, or none, in all of its slots."""

    def __init__(
        self,
        folder: Path,
        lora: Sequence[LoraLayer],
        factors: Mapping[str, Array],
        *,
        slots: int,
        max_context: int,
        decoder: Decoder | None = None,
    ) -> None:
        """factors: as in an adapter's bundle; none: no adapter."""
        super().__init__(folder, slots=slots, max_context=max_context, graph=LORA_GRAPH, decoder=decoder)
        self._factors = whole_factors(lora, factors)
        self._taken = {layer.parts: len(self._factors[f"lora.{i}.a"]) for i, layer in enumerate(lora)}
        self._on = float(bool(factors))

    def feeds(self, ids: Array, past: Sequence[int], rows: list[int]) -> dict[str, Array]:
        shapes = {parts: (count, len(ids)) for parts, count in self._taken.items()}
        taken = {f"{ROWS}{parts}": np.full(shape, self._on, np.float32) for parts, shape in shapes.items()}
        return super().feeds(ids, past, rows) | taken | self._factors


def whole_factors(layers: Sequence[LoraLayer], factors: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's inputs "lora.{i}.a" and ".b"; layers that an adapter leaves alone get zeros."""
    units = max((len(factors.get(f"{one.name}.a", ())) // one.parts for one in layers), default=0) or 1
    feeds = {}
    for number, layer in enumerate(layers):
        parts = units * layer.parts
        for kind, shape in ("a", (parts, layer.inputs, UNIT)), ("b", (parts * UNIT, layer.outputs)):
            zeros = np.zeros(shape, np.float32)
            feeds[f"lora.{number}.{kind}"] = factors.get(f"{layer.name}.{kind}", zeros)
    return feeds


def _save_over(model: ir.Model, compiled: Path, out: Path) -> None:
    """The graph alone: its weights stay in the file that the first one has, which lies beside it."""
    for name in (DATA, FOLDS, DECODER):
        link_or_copy(compiled / name, out / name)
    model.graph.name = Path(LORA_GRAPH).stem
    ir.save(model, out / LORA_GRAPH)


def _answers_alike(compiled: Path, out: Path, made: LoraGraph) -> bool:
    plain = SlotRunner(compiled, slots=2, max_context=CHECKED + 1)
    ours = LoraRunner(out, made.layers, {}, slots=2, max_context=CHECKED + 1)
    return all(np.array_equal(*pair) for pair in zip(_answers(plain), _answers(ours), strict=True))


def _answers(runner: SlotRunner) -> list[Array]:
    """Logits of a chunk for each of two rows, and of a step of both."""
    ids = np.arange(CHECKED) * 7 % runner.decoder.vocab_size
    chunks: list[Array] = [runner.chunk(slot, list(ids + slot), 0) for slot in (0, 1)]
    return [*chunks, runner.decode([1, 2], [CHECKED, CHECKED])]
