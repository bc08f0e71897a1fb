"""The export of an encoder: a graph, fp32 or w8a8, vectors or logits compared, golden cases, buckets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from basert.errors import ExportError
from basert.manifest import ENCODER_GOLDEN, PARITY, EncoderGolden, EncoderParity, Graph, write_json
from basert.progress import Show
from export.calibration import CALIBRATION
from export.choice import Choice, check_variant, choose_encoder
from export.encoders.buckets import read_buckets
from export.encoders.calibration import calibrate
from export.encoders.golden import make_golden
from export.encoders.graph import DATA, GRAPH, EncoderGraph, encoder_from_checkpoint, read_encoder
from export.encoders.parity import Measured, Reference, check, measure
from export.encoders.runner import NO_CACHE, EncoderRunner
from export.encoders.texts import evaluation_inputs
from export.encoders.variants import build_settled, build_w8a8
from export.family import Contents, ExportRequest
from export.prepare import weight_bytes
from export.steps import Step, Steps
from export.workspace import require_space

ANSWERS = "answers.npy"  # the reference's, float32 [inputs, width]


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
        return choose_encoder(self.request.variant)

    def compile(self, variant: str) -> Step:
        return self.fp32 if variant == "fp32" else self._w8a8

    @functools.cached_property
    def _w8a8(self) -> Step:
        settled = self._step("settle", [self.fp32, self._calibrated(self.fp32)], build_settled)
        return self._step("passes-w8a8", [settled, self._calibrated(settled)], build_w8a8)

    def parity(self, variant: str) -> dict[str, Measured]:
        """By target. OpenVINO runs the fp32 graph, which is measured on the CPU provider without it."""
        graphs = self._graphs(variant)
        measured = {step.key: self._measured(step) for step in {s.key: s for s in graphs.values()}.values()}
        return {target: measured[step.key] for target, step in graphs.items()}

    def check(self, variant: str, parity: dict[str, Measured]) -> None:
        check(variant, parity["cpu"])
        check("fp32", parity["openvino"])

    def contents(self, variant: str, parity: dict[str, Measured]) -> Contents:
        graph = read_encoder(self.fp32.folder)
        numbers = {target: measured.numbers for target, measured in parity.items()}
        files, described = self._placed(variant, graph)
        golden = self._golden(variant, parity["cpu"].spread)
        return Contents(
            files=files,
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
                "graphs": described,
                "encoder": msgspec.structs.replace(graph.encoder, parity=numbers),
            },
        )

    def _graphs(self, variant: str) -> dict[str, Step]:
        """OpenVINO computes the fp32 graph in bf16: as fast as 8 bits, and nearer to the checkpoint."""
        return {"cpu": self.compile(variant), "openvino": self.fp32}

    def _placed(self, variant: str, graph: EncoderGraph) -> tuple[dict[str, Path], list[Graph]]:
        """Where in the bundle the graphs go, each once, and what the manifest says of them."""
        files: dict[str, Path] = {}
        described = []
        for target, step in self._graphs(variant).items():
            folder = "graphs" if target == "cpu" or variant == "fp32" else f"graphs/{target}"
            for name in (GRAPH, DATA):
                files[f"{folder}/{name}"] = step.folder / name
            path = f"{folder}/{GRAPH}"
            described.append(Graph("encoder", target, path, graph.inputs, graph.outputs, shapes=self.buckets))
        return files, described

    def _graph(self) -> Step:
        folder = self.checkpoint.folder

        def make(out: Path, _: Show) -> None:
            require_space(out, weight_bytes(folder), "the fp32 graph")
            encoder_from_checkpoint(folder, out, max_tokens=self.request.max_context)

        return self.steps.run("graph", [self.checkpoint.key, str(self.request.max_context)], make)

    def _calibrated(self, graph: Step) -> Step:
        def make(out: Path, show: Show) -> None:
            calibrate(self.checkpoint.folder, graph.folder, out, show)

        return self.steps.run(f"calibrate-{graph.folder.name}", [graph.key], make)

    def _step(self, name: str, inputs: list[Step], build: Callable[[Path, Path, Path, Show], None]) -> Step:
        """`build` of a graph and what it was fed with."""
        graph, calibration = inputs

        def make(out: Path, show: Show) -> None:
            require_space(out, weight_bytes(self.checkpoint.folder), f"the graph of {name}")
            build(graph.folder, calibration.folder / CALIBRATION, out, show)

        return self.steps.run(name, [step.key for step in inputs], make)

    def _measured(self, graph: Step) -> Measured:
        expected = self._reference

        def make(out: Path, _: Show) -> None:
            runner = EncoderRunner(graph.folder)
            groups = evaluation_inputs(self.checkpoint.folder, runner.graph.encoder)
            write_json(out / PARITY, measure(runner, groups, np.load(expected.folder / ANSWERS)))

        step = self.steps.run(f"parity-{graph.folder.name}", [graph.key, expected.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=Measured)

    @functools.cached_property
    def _reference(self) -> Step:
        """What transformers answers, in a file of its own: it takes longer than all else."""
        encoder = read_encoder(self.fp32.folder).encoder

        def make(out: Path, show: Show) -> None:
            groups = evaluation_inputs(self.checkpoint.folder, encoder)
            inputs = [one for group in groups for one in group]
            np.save(out / ANSWERS, Reference(self.checkpoint.folder).encode_all(inputs, show))

        return self.steps.run("reference", [self.fp32.key], make)

    def _golden(self, variant: str, spread: float) -> EncoderGolden:
        def make(out: Path, _: Show) -> None:
            golden = make_golden(self.checkpoint.folder, self.fp32.folder, variant, spread)
            write_json(out / ENCODER_GOLDEN, golden)

        step = self.steps.run("golden", [self.fp32.key, variant, str(spread)], make)
        return msgspec.json.decode((step.folder / ENCODER_GOLDEN).read_bytes(), type=EncoderGolden)
