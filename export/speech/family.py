"""The export of a Whisper: its two graphs, fp32 or w8a8, compared over synthetic windows, golden cases."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.errors import ExportError
from basert.manifest import PARITY, SPEECH_GOLDEN, Graph, SpeechGolden, SpeechParity, write_json
from basert.progress import Show
from engines.sessions.instructions import integer_products
from export.bundle_text import read_special_tokens
from export.choice import NOT_QUANTISED, Choice, check_variant
from export.family import Contents, ExportRequest
from export.graph import GRAPH as DECODER
from export.graph import Decoder, read_decoder
from export.prepare import weight_bytes
from export.speech.golden import make_golden
from export.speech.graph import GRAPH, OPENVINO, Listener, read_listener, speech_from_checkpoint
from export.speech.parity import Measured, check, measure
from export.speech.variants import build_w8a8, calibrate
from export.steps import Step, Steps
from export.workspace import require_space

BATCH_BUCKETS = [1, 2, 4, 8, 16, 32]
CHUNK_BUCKETS = [8, 32, 64, 128, 256]  # prompts are a few tokens, or up to 224 that came before
WINDOWS = [1]  # of a listener's run: several at once take as long each


class Parities(msgspec.Struct, frozen=True):
    """parity.json of a speech model."""

    targets: dict[str, SpeechParity]


class SpeechFamily:
    """See export.family.Family."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None:
        self.request, self.steps, self.checkpoint = request, steps, checkpoint
        self.fp32 = self._graph()
        self._compiled = {"fp32": self.fp32}

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
        feature = integer_products()
        if feature is None:
            return Choice(["fp32"], f"auto: {NOT_QUANTISED}")
        return Choice(["w8a8", "fp32"], f"auto: with {feature}, w8a8 is the faster one")

    def compile(self, variant: str) -> Step:
        if variant not in self._compiled:
            self._compiled[variant] = self._w8a8(variant)
        return self._compiled[variant]

    def _w8a8(self, variant: str) -> Step:
        calibration = self._calibrate()

        def make(out: Path, show: Show) -> None:
            require_space(out, 2 * weight_bytes(self.checkpoint.folder), f"the {variant} graphs")
            build_w8a8(self.fp32.folder, calibration.folder, out, show)

        return self.steps.run(f"passes-{variant}", [self.fp32.key, calibration.key], make)

    def parity(self, variant: str) -> dict[str, Measured]:
        compiled = self.compile(variant)
        measured = {graph: self._measure(compiled, graph) for graph in set(_listeners(variant).values())}
        return {target: measured[graph] for target, graph in _listeners(variant).items()}

    def check(self, variant: str, parity: dict[str, Measured]) -> None:
        for measured in parity.values():
            check(variant, measured)

    def contents(self, variant: str, parity: dict[str, Measured]) -> Contents:
        folder = self.compile(variant).folder
        decoder, listener, listeners = read_decoder(folder), read_listener(folder), _listeners(variant)
        numbers = {target: measured.parity() for target, measured in parity.items()}
        tokens = read_special_tokens(self.checkpoint.folder)
        names = [name for graph in {DECODER, *listeners.values()} for name in (graph, f"{graph}.data")]
        graphs = [_listener(listener, target, graph) for target, graph in listeners.items()]
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
                "graphs": [_decoder(decoder), *graphs],
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

    def _calibrate(self) -> Step:
        def make(out: Path, show: Show) -> None:
            calibrate(self.checkpoint.folder, self.fp32.folder, out, show)

        return self.steps.run("calibrate", [self.fp32.key], make)

    def _measure(self, compiled: Step, listener: str) -> Measured:
        def make(out: Path, show: Show) -> None:
            write_json(out / PARITY, measure(self.checkpoint.folder, compiled.folder, listener, show))

        name = "parity" if listener == GRAPH else f"parity-{Path(listener).stem}"
        step = self.steps.run(name, [compiled.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=Measured)

    def _golden(self, variant: str) -> SpeechGolden:
        compiled = self.compile(variant)

        def make(out: Path, _: Show) -> None:
            golden = make_golden(self.checkpoint.folder, compiled.folder, variant, list(_listeners(variant)))
            write_json(out / SPEECH_GOLDEN, golden)

        step = self.steps.run("golden", [compiled.key], make)
        return msgspec.json.decode((step.folder / SPEECH_GOLDEN).read_bytes(), type=SpeechGolden)


def _listeners(variant: str) -> dict[str, str]:
    """The file of each target's listener."""
    return {"cpu": GRAPH, "openvino": GRAPH if variant == "fp32" else OPENVINO}


def _decoder(decoder: Decoder) -> Graph:
    return Graph(
        role="decoder",
        target="cpu",
        path=f"graphs/{DECODER}",
        inputs=decoder.inputs,
        outputs=decoder.outputs,
        batch_buckets=BATCH_BUCKETS,
        chunk_buckets=CHUNK_BUCKETS,
    )


def _listener(listener: Listener, target: str, graph: str) -> Graph:
    return Graph(
        role="listener",
        target=target,
        path=f"graphs/{graph}",
        inputs=listener.inputs,
        outputs=listener.outputs,
        shapes=[(rows, 2 * listener.speech.frames) for rows in WINDOWS],
    )
