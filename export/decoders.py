"""The export of a decoder: a slot graph, variants that are timed, logits compared, golden cases."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.errors import ExportError
from basert.manifest import GOLDEN, PARITY, Golden, Graph, ParityNumbers, write_json
from basert.progress import Show
from export.bundle_text import read_special_tokens
from export.checkpoint import read_config
from export.choice import Choice, check_variant, choose
from export.compiling import Compiler
from export.family import Contents, ExportRequest
from export.golden import make_golden
from export.graph import DATA, GRAPH, Decoder, decoder_from_checkpoint, read_decoder
from export.lora.graph import LORA_GRAPH, LoraGraph, build_lora_graph, read_lora_graph
from export.lora.modules import MODULES, find_modules, read_modules
from export.parity import check, measure
from export.passes.folds import FOLDS
from export.passes.prefill import FUSED
from export.positions import longest_context
from export.prepare import weight_bytes
from export.speed import Speed, measure_speeds
from export.steps import Step, Steps
from export.variants import choose_cache_bits
from export.workspace import require_space

SPEEDS = "speeds.json"
LORA_PATH = f"graphs/{LORA_GRAPH}"
DEFAULT_CONTEXT = 8192  # tokens; what a checkpoint was trained for, if that is less
BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64]
CHUNK_BUCKETS = [32, 64, 128, 256, 512]
DRAFT_BUCKETS = [2**n for n in range(1, FUSED.bit_length())]  # with an int8 cache


class DecoderFamily:
    """See export.family.Family."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None:
        self.request, self.steps, self.checkpoint = request, steps, checkpoint
        self.graph = self._graph()
        self.compiler = Compiler(steps, checkpoint.folder, self.graph, request.kv_bits)

    @staticmethod
    def refuse(request: ExportRequest) -> None:
        check_variant(request.variant)
        choose_cache_bits(request.kv_bits, request.variant)
        if request.buckets != "auto":
            raise ExportError("A decoder has no buckets to choose; leave --buckets out.")

    def choose(self) -> Choice:
        return choose(self.request.variant, weight_bytes(self.checkpoint.folder), self._speeds)

    def compile(self, variant: str) -> Step:
        return self.compiler.compile(variant)

    def parity(self, variant: str) -> ParityNumbers:
        compiled = self.compile(variant)

        def make(out: Path, show: Show) -> None:
            write_json(out / PARITY, measure(self.checkpoint.folder, compiled.folder, show))

        step = self.steps.run("parity", [compiled.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=ParityNumbers)

    def check(self, variant: str, parity: ParityNumbers) -> None:
        check(variant, parity)

    def contents(self, variant: str, parity: ParityNumbers) -> Contents:
        folder, lora_folder = self.compile(variant).folder, self._lora(variant).folder
        lora = read_lora_graph(lora_folder)
        decoder = read_decoder(folder)
        tokens = read_special_tokens(self.checkpoint.folder)
        path, folds = f"graphs/{GRAPH}", f"graphs/{FOLDS}"
        files = {path: folder / GRAPH, f"graphs/{DATA}": folder / DATA}
        graphs = [_graph(decoder, path)]
        if lora.layers:
            files |= {LORA_PATH: lora_folder / LORA_GRAPH, folds: lora_folder / FOLDS}
            graphs.append(_lora_graph(lora, graphs[0]))
        return Contents(
            files=files,
            documents={PARITY: parity, GOLDEN: self._golden(variant)},
            architecture=decoder.architecture,
            exporter=decoder.exporter,
            fields={
                "family": "decoder",
                "vocab_size": decoder.vocab_size,
                "max_context": decoder.max_context,
                "slots": self.request.slots,
                "eos_token_ids": [token for token in tokens.eos if 0 <= token < decoder.vocab_size],
                "kv_cache": decoder.kv_cache,
                "graphs": graphs,
                "lora": lora.manifest(folds),
                "parity": parity,
            },
        )

    def _graph(self) -> Step:
        folder = self.checkpoint.folder
        longest = longest_context(read_config(folder))
        context = self.request.max_context or min(DEFAULT_CONTEXT, longest)

        def make(out: Path, _: Show) -> None:
            require_space(out, weight_bytes(folder), "the fp32 graph")
            decoder_from_checkpoint(folder, out, max_context=context)

        return self.steps.run("graph", [self.checkpoint.key, str(context)], make)

    def _lora(self, variant: str) -> Step:
        """The graph for adapters, or that there is none."""
        checkpoint, graph, compiled = self.checkpoint, self.graph, self.compile(variant)

        def find(out: Path, _: Show) -> None:
            layers = find_modules(checkpoint.folder, graph.folder)
            (out / MODULES).write_bytes(msgspec.json.encode(layers))

        modules = self.steps.run("modules", [checkpoint.key, graph.key], find)

        def make(out: Path, _: Show) -> None:
            build_lora_graph(compiled.folder, read_modules(modules.folder), out)

        return self.steps.run(f"lora-{variant}", [compiled.key, modules.key], make)

    def _speeds(self, variants: tuple[str, ...]) -> dict[str, Speed]:
        compiled = {variant: self.compile(variant) for variant in variants}

        def make(out: Path, show: Show) -> None:
            folders = {variant: step.folder for variant, step in compiled.items()}
            (out / SPEEDS).write_bytes(msgspec.json.encode(measure_speeds(folders, show)))

        step = self.steps.run("speed", [step.key for step in compiled.values()], make)
        return msgspec.json.decode((step.folder / SPEEDS).read_bytes(), type=dict[str, Speed])

    def _golden(self, variant: str) -> Golden:
        compiled = self.compile(variant)

        def make(out: Path, _: Show) -> None:
            write_json(out / GOLDEN, make_golden(self.checkpoint.folder, compiled.folder, variant))

        step = self.steps.run("golden", [compiled.key], make)
        return msgspec.json.decode((step.folder / GOLDEN).read_bytes(), type=Golden)


def _graph(decoder: Decoder, path: str) -> Graph:
    drafts = DRAFT_BUCKETS if decoder.kv_cache.dtype == "int8" else []
    return Graph(
        role="decoder",
        target="cpu",
        path=path,
        inputs=decoder.inputs,
        outputs=decoder.outputs,
        batch_buckets=BATCH_BUCKETS,
        chunk_buckets=CHUNK_BUCKETS,
        draft_buckets=drafts,
    )


def _lora_graph(lora: LoraGraph, plain: Graph) -> Graph:
    return msgspec.structs.replace(
        plain, role="decoder-lora", path=LORA_PATH, inputs=lora.inputs, outputs=lora.outputs
    )
