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
from export.parity import check, measure
from export.passes.prefill import FUSED
from export.positions import longest_context
from export.prepare import weight_bytes
from export.speed import Speed, measure_speeds
from export.steps import Step, Steps
from export.variants import choose_cache_bits
from export.workspace import require_space

SPEEDS = "speeds.json"
DEFAULT_CONTEXT = 8192  # tokens; what a checkpoint was trained for, if that is less
BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64]
CHUNK_BUCKETS = [32, 64, 128, 256, 512]
DRAFT_BUCKETS = [2**n for n in range(1, FUSED.bit_length())]  # with an int8 cache


class DecoderFamily:
    """See export.family.Family."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None:
        self.request, self.steps, self.checkpoint = request, steps, checkpoint
        self.compiler = Compiler(steps, checkpoint.folder, self._graph(), request.kv_bits)

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
        folder = self.compile(variant).folder
        decoder = read_decoder(folder)
        tokens = read_special_tokens(self.checkpoint.folder)
        path = f"graphs/{GRAPH}"
        return Contents(
            files={path: folder / GRAPH, f"graphs/{DATA}": folder / DATA},
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
                "graphs": [_graph(decoder, path)],
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
