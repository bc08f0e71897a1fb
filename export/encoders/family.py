"""The export of an encoder: a graph, fp32 or w8a8, vectors or logits compared, golden cases, buckets."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.errors import ExportError
from basert.manifest import ENCODER_GOLDEN, PARITY, EncoderGolden, EncoderParity, Graph, write_json
from basert.progress import Show
from export.choice import Choice, check_variant
from export.encoders.buckets import read_buckets
from export.encoders.golden import make_golden
from export.encoders.graph import DATA, GRAPH, EncoderGraph, encoder_from_checkpoint, read_encoder
from export.encoders.parity import Measured, check, measure
from export.encoders.runner import NO_CACHE
from export.family import Contents, ExportRequest
from export.prepare import weight_bytes
from export.steps import Step, Steps
from export.workspace import require_space


class Parities(msgspec.Struct, frozen=True):
    """parity.json of an encoder."""

    targets: dict[str, EncoderParity]


class EncoderFamily:
    """See export.family.Family."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None:
        self.request, self.steps, self.checkpoint = request, steps, checkpoint
        self.fp32 = self._graph()
        encoder = read_encoder(self.fp32.folder).encoder
        self.buckets = read_buckets(request.buckets, encoder.max_tokens)

    @staticmethod
    def refuse(request: ExportRequest) -> None:
        check_variant(request.variant)
        if request.variant == "int4":
            raise ExportError("Encoders are exported as fp32 or w8a8: int4 would save memory and cost speed.")
        if request.kv_bits != "auto":
            raise ExportError("An encoder has no KV cache; leave --kv-bits out.")

    def choose(self) -> Choice:
        if self.request.variant != "auto":
            return Choice([self.request.variant], "asked for")
        return Choice(["fp32"], "auto: for now")

    def compile(self, variant: str) -> Step:
        return self.fp32

    def parity(self, variant: str) -> dict[str, Measured]:
        measured = self._measure("parity", self.compile(variant))
        return {"cpu": measured, "openvino": measured}

    def check(self, variant: str, parity: dict[str, Measured]) -> None:
        for target, measured in parity.items():
            check(variant if target == "cpu" else "fp32", measured)

    def contents(self, variant: str, parity: dict[str, Measured]) -> Contents:
        graph = read_encoder(self.fp32.folder)
        numbers = {target: measured.numbers for target, measured in parity.items()}
        path = f"graphs/{GRAPH}"
        golden = self._golden(variant, parity["cpu"].spread)
        return Contents(
            files={path: self.fp32.folder / GRAPH, f"graphs/{DATA}": self.fp32.folder / DATA},
            documents={PARITY: Parities(numbers), ENCODER_GOLDEN: golden},
            architecture=graph.architecture,
            exporter=graph.exporter,
            fields={
                "family": "encoder",
                "vocab_size": graph.vocab_size,
                "max_context": graph.encoder.max_tokens,
                "slots": 1,
                "eos_token_ids": [],
                "kv_cache": NO_CACHE,
                "graphs": [self._described(graph, target, path) for target in ("cpu", "openvino")],
                "encoder": msgspec.structs.replace(graph.encoder, parity=numbers),
            },
        )

    def _graph(self) -> Step:
        folder = self.checkpoint.folder

        def make(out: Path, _: Show) -> None:
            require_space(out, weight_bytes(folder), "the fp32 graph")
            encoder_from_checkpoint(folder, out, max_tokens=self.request.max_context)

        return self.steps.run("graph", [self.checkpoint.key, str(self.request.max_context)], make)

    def _measure(self, name: str, compiled: Step) -> Measured:
        def make(out: Path, show: Show) -> None:
            write_json(out / PARITY, measure(self.checkpoint.folder, compiled.folder, show))

        step = self.steps.run(name, [compiled.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=Measured)

    def _golden(self, variant: str, spread: float) -> EncoderGolden:
        def make(out: Path, _: Show) -> None:
            targets = {"cpu": variant, "openvino": "fp32"}
            write_json(
                out / ENCODER_GOLDEN, make_golden(self.checkpoint.folder, self.fp32.folder, targets, spread)
            )

        step = self.steps.run("golden", [self.fp32.key, variant, str(spread)], make)
        return msgspec.json.decode((step.folder / ENCODER_GOLDEN).read_bytes(), type=EncoderGolden)

    def _described(self, graph: EncoderGraph, target: str, path: str) -> Graph:
        return Graph(
            role="encoder",
            target=target,
            path=path,
            inputs=graph.inputs,
            outputs=graph.outputs,
            shapes=self.buckets,
        )
