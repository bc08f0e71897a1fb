"""The export of a Whisper: its two graphs, fp32 or w8a8, compared over synthetic windows, golden cases."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.errors import ExportError
from basert.manifest import PARITY, SPEECH_GOLDEN, Graph, SpeechGolden, SpeechParity, write_json
from basert.progress import Show
from export import graph as slot_graph
from export.bundle_text import read_special_tokens
from export.choice import Choice, check_variant
from export.family import Contents, ExportRequest
from export.graph import Decoder, read_decoder
from export.prepare import weight_bytes
from export.speech import graph as listener_graph
from export.speech.golden import make_golden
from export.speech.graph import read_listener, speech_from_checkpoint
from export.speech.parity import Measured, check, measure
from export.steps import Step, Steps
from export.workspace import require_space

BATCH_BUCKETS = [1, 2, 4, 8, 16, 32]
CHUNK_BUCKETS = [8, 32, 64, 128, 256]  # prompts are a few tokens, or up to 224 that came before
WINDOWS = [1, 2, 4]  # of a listener's run: more are no faster by the window


class Parities(msgspec.Struct, frozen=True):
    """parity.json of a speech model."""

    targets: dict[str, SpeechParity]


class SpeechFamily:
    """See export.family.Family."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None:
        self.request, self.steps, self.checkpoint = request, steps, checkpoint
        self.fp32 = self._graph()

    @staticmethod
    def refuse(request: ExportRequest) -> None:
        check_variant(request.variant)
        if request.variant == "int4":
            raise ExportError(
                "Speech models are exported as fp32 or w8a8: int4 would save memory and cost speed."
            )
        if request.kv_bits == "8":
            raise ExportError(
                "A speech model's texts are short, its cache stays in float32; leave --kv-bits out."
            )
        if request.buckets != "auto":
            raise ExportError("A speech model has no buckets to choose; leave --buckets out.")

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
        check(variant, parity["cpu"])

    def contents(self, variant: str, parity: dict[str, Measured]) -> Contents:
        folder = self.compile(variant).folder
        decoder, listener = read_decoder(folder), read_listener(folder)
        numbers = {target: measured.parity() for target, measured in parity.items()}
        tokens = read_special_tokens(self.checkpoint.folder)
        names = [slot_graph.GRAPH, slot_graph.DATA, listener_graph.GRAPH, listener_graph.DATA]
        return Contents(
            files={f"graphs/{name}": folder / name for name in names},
            documents={PARITY: Parities(numbers), SPEECH_GOLDEN: self._golden(variant)},
            architecture=decoder.architecture,
            exporter=decoder.exporter,
            fields={
                "family": "speech",
                "vocab_size": decoder.vocab_size,
                "max_context": decoder.max_context,
                "slots": self.request.slots,
                "eos_token_ids": [token for token in tokens.eos if 0 <= token < decoder.vocab_size],
                "kv_cache": decoder.kv_cache,
                "graphs": [_decoder(decoder), *(_listener(listener, target) for target in parity)],
                "parity": parity["cpu"].numbers,
                "speech": msgspec.structs.replace(listener.speech, parity=numbers),
            },
        )

    def _graph(self) -> Step:
        folder = self.checkpoint.folder

        def make(out: Path, _: Show) -> None:
            require_space(out, weight_bytes(folder), "the fp32 graphs")
            speech_from_checkpoint(folder, out, max_context=self.request.max_context)

        return self.steps.run("graph", [self.checkpoint.key, str(self.request.max_context)], make)

    def _measure(self, name: str, compiled: Step) -> Measured:
        def make(out: Path, show: Show) -> None:
            write_json(out / PARITY, measure(self.checkpoint.folder, compiled.folder, show))

        step = self.steps.run(name, [compiled.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=Measured)

    def _golden(self, variant: str) -> SpeechGolden:
        compiled = self.compile(variant)

        def make(out: Path, _: Show) -> None:
            targets = {target: f"{target}-{variant}" for target in ("cpu", "openvino")}
            golden = make_golden(self.checkpoint.folder, compiled.folder, targets)
            write_json(out / SPEECH_GOLDEN, golden)

        step = self.steps.run("golden", [compiled.key], make)
        return msgspec.json.decode((step.folder / SPEECH_GOLDEN).read_bytes(), type=SpeechGolden)


def _decoder(decoder: Decoder) -> Graph:
    return Graph(
        role="decoder",
        target="cpu",
        path=f"graphs/{slot_graph.GRAPH}",
        inputs=decoder.inputs,
        outputs=decoder.outputs,
        batch_buckets=BATCH_BUCKETS,
        chunk_buckets=CHUNK_BUCKETS,
    )


def _listener(listener: listener_graph.Listener, target: str) -> Graph:
    return Graph(
        role="listener",
        target=target,
        path=f"graphs/{listener_graph.GRAPH}",
        inputs=listener.inputs,
        outputs=listener.outputs,
        shapes=[(rows, 2 * listener.speech.frames) for rows in WINDOWS],
    )
