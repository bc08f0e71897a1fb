"""The parity gate of speech: a Whisper's two graphs against transformers in fp32, over synthetic windows.

The graphs run as the engine runs them: windows one at a time through the listener, each sequence in a slot
that hears its window, texts in chunks, the last tokens of all of them decoded together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from basert.errors import ParityError
from basert.manifest import ParityNumbers, SpeechParity
from basert.progress import Show
from export.graph import read_decoder
from export.parity import LIMITS as DECODER_LIMITS
from export.parity import Limits, check_numbers, compare
from export.runner import Array
from export.speech.graph import load_model
from export.speech.runner import HearingRunner, ListenerRunner
from export.speech.windows import evaluation_windows

LIMITS = {"fp32": DECODER_LIMITS["fp32"], "w8a8": Limits(None, 0.85, 0.05, 1.05)}
FARTHEST = {"fp32": 2e-3, "w8a8": 8.0}  # encoder_difference


class Measured(msgspec.Struct, frozen=True):
    windows: int
    encoder_difference: float  # as SpeechParity has it
    numbers: ParityNumbers

    def parity(self) -> SpeechParity:
        numbers = self.numbers
        return SpeechParity(
            windows=self.windows,
            encoder_difference=self.encoder_difference,
            tokens=numbers.tokens,
            greedy_agreement=numbers.greedy_agreement,
            kl_divergence=numbers.kl_divergence,
        )


class Reference:
    """transformers' own model in fp32."""

    def __init__(self, checkpoint: Path, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.model = load_model(checkpoint)

    def listen(self, features: Array) -> Any:
        """The encoder's answer to one window, [mels, 2 * frames]: float32 [1, frames, channels]."""
        with torch.no_grad():
            return self.model.model.encoder(torch.from_numpy(features)[None]).last_hidden_state

    def cross(self, heard: Any) -> dict[str, Array]:
        """Keys and values of every decoder layer: float32 [heads, frames, head_dim] each."""
        found: dict[str, Array] = {}
        with torch.no_grad():
            for number, layer in enumerate(self.model.model.decoder.layers):
                attention = layer.encoder_attn
                for kind in ("key", "value"):
                    made = getattr(attention, f"{kind[0]}_proj")(heard)[0]
                    heads = made.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
                    found[f"cross.{number}.{kind}"] = heads.numpy()
        return found

    def logits(self, heard: Any, ids: list[int]) -> torch.Tensor:
        """float32 [len(ids), vocab]: what follows each prefix of `ids`."""
        with torch.no_grad():
            out = self.model(encoder_outputs=(heard,), decoder_input_ids=torch.tensor([ids]), use_cache=False)
        logits: torch.Tensor = out.logits[0].float()
        return logits


def measure(
    checkpoint: Path, graph: Path, listener_graph: str, progress: Show, *, threads: int = 0
) -> Measured:
    """Compare the two graphs in folder `graph`, the listener of that name, with their checkpoint."""
    listener = ListenerRunner(graph, threads=threads, graph=listener_graph)
    speech = listener.listener.speech
    windows = evaluation_windows(checkpoint, speech, read_decoder(graph).max_context)
    longest = max(len(window.ids) for window in windows)
    runner = HearingRunner(graph, slots=len(windows), max_context=longest, threads=threads)
    reference, heard, difference = Reference(checkpoint, threads), [], 0.0
    for slot, window in enumerate(windows):
        features = window.features(speech)
        heard.append(reference.listen(features))
        ours = listener.listen(features[None])
        runner.hear(slot, ours)
        difference = max(difference, _difference(ours, reference.cross(heard[-1])))
    numbers = compare(
        lambda slot, ids: reference.logits(heard[slot], ids),
        runner,
        [window.ids for window in windows],
        progress,
    )
    return Measured(len(windows), difference, numbers)


def check(variant: str, measured: Measured) -> None:
    """Raises ParityError naming the first number that is over the variant's limits, and the limit."""
    if not measured.encoder_difference <= FARTHEST[variant]:
        raise ParityError(
            f"The {variant} listener differs too much from the checkpoint: its largest difference is"
            f" {measured.encoder_difference:.6g} standard deviations, the limit {FARTHEST[variant]:g}. Try"
            " another --variant;"
            " if fp32 fails too, the exporter is wrong for this model."
        )
    check_numbers(variant, measured.numbers, LIMITS[variant])


def _difference(ours: dict[str, Array], expected: dict[str, Array]) -> float:
    """The largest of any key or value, in standard deviations of those of its layer and kind."""
    return max(
        float(np.abs(_scaled(ours[name][0], array) - array).max() / max(float(array.std()), 1e-12))
        for name, array in expected.items()
    )


def _scaled(made: Array, like: Array) -> Array:
    """What the graph keeps in 8 bits, [heads, frames, head_dim], by the scales of its channels that fit best:
    the graphs themselves have none, they are folded away."""
    if made.dtype != np.int8:
        return made
    steps = made.astype(np.float32)
    fit = (steps * like).sum(axis=1, keepdims=True) / np.maximum((steps**2).sum(axis=1, keepdims=True), 1)
    return np.asarray(steps * fit)
