"""The parity gate: an exported slot graph against transformers in fp32, on real text.

The graph runs as the engine runs it: every sequence has a slot, its text goes in chunk by chunk behind what
the cache holds, and the last DECODED tokens of all sequences are decoded together, one step for all. Every
position's logits are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import torch

from basert.errors import ParityError
from basert.manifest import ParityNumbers
from basert.progress import Show
from export import prose
from export.checkpoint import token_ids
from export.graph import Decoder, read_decoder
from export.reference import Reference
from export.runner import SlotRunner, chunks

WINDOW = 512  # tokens of a sequence
CHUNK = 128  # tokens of a prefill chunk
DECODED = 32  # last tokens of each sequence, decoded in a batch
TIE = 2e-3  # the reference's own choice is not settled where two logits are closer than this


FAR = 50.0  # nats a token; perplexities further apart are all the same, and may be no float


class Limits(msgspec.Struct, frozen=True):
    """What an export may differ by; None: not limited."""

    max_logit_difference: float | None
    greedy_agreement: float  # at least
    kl_divergence: float
    perplexity_ratio: float  # at most, and at least its inverse


LIMITS = {
    "fp32": Limits(1e-3, 1.0, 1e-6, 1.0001),
    "w8a8": Limits(None, 0.85, 0.08, 1.08),
    "int4": Limits(None, 0.70, 0.35, 1.20),
}
"""Some way beyond what SmolLM2-135M and Gemma 3 270M measure (docs/export.md).

A graph that computes something else diverges by 1 and more.
"""


class Comparison:
    """Sums up differences of logits, [positions, vocab] at a time."""

    def __init__(self) -> None:
        self.tokens = 0
        self.largest = 0.0
        self._agreed = self._divergence = self._ours = self._reference = 0.0

    def add(self, ours: torch.Tensor, reference: torch.Tensor, following: Sequence[int]) -> None:
        """Both float32 [positions, vocab]; `following`: the ids that the text goes on with."""
        if not bool(ours.isfinite().all()):
            raise ParityError(
                "The exported graph answers what is no number (NaN, infinity); try another --variant."
            )
        self.tokens += len(following)
        self.largest = max(self.largest, float((ours - reference).abs().max()))
        best = reference.max(-1).values
        chosen = reference.gather(-1, ours.argmax(-1, keepdim=True))[:, 0]
        self._agreed += float((chosen >= best - TIE).sum())
        p, q = reference.log_softmax(-1), ours.log_softmax(-1)
        self._divergence += float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
        ids = torch.tensor(following)[:, None]
        self._ours -= float(q.gather(-1, ids).sum())
        self._reference -= float(p.gather(-1, ids).sum())

    def numbers(self) -> ParityNumbers:
        return ParityNumbers(
            tokens=self.tokens,
            max_logit_difference=self.largest,
            greedy_agreement=self._agreed / self.tokens,
            kl_divergence=max(0.0, self._divergence / self.tokens),  # rounding may take it below
            perplexity_ratio=math.exp(max(-FAR, min(FAR, (self._ours - self._reference) / self.tokens))),
        )


def measure(checkpoint: Path, graph: Path, progress: Show, *, threads: int = 0) -> ParityNumbers:
    """Compare the slot graph in folder `graph` with its checkpoint over the shipped evaluation text."""
    ids = token_ids(checkpoint, prose.evaluation())
    return measure_ids(checkpoint, graph, sequences_of(ids, read_decoder(graph)), progress, threads=threads)


def sequences_of(ids: list[int], decoder: Decoder) -> list[list[int]]:
    """Sequences of WINDOW tokens; with a sliding window that the text can fill, the first one passes it."""
    first = length = min(WINDOW, decoder.max_context)
    if decoder.window is not None and decoder.window < len(ids):
        first = max(length, min(decoder.window + WINDOW // 2, decoder.max_context))
    parts = [ids[:first], *(list(part) for _, part in chunks(ids[first:], length))]
    return [part for part in parts if len(part) > DECODED]


def measure_ids(
    checkpoint: Path, graph: Path, sequences: list[list[int]], progress: Show, *, threads: int = 0
) -> ParityNumbers:
    """`measure` over sequences of one's own, each longer than DECODED."""
    reference = Reference(checkpoint, threads)
    longest = max(len(ids) for ids in sequences)
    runner = SlotRunner(graph, slots=len(sequences), max_context=longest, threads=threads)
    return compare(lambda _, ids: reference.logits(ids), runner, sequences, progress)


def compare(
    reference: Callable[[int, list[int]], torch.Tensor],
    runner: SlotRunner,
    sequences: list[list[int]],
    progress: Show,
) -> ParityNumbers:
    """reference: what follows each prefix of the ids in a slot, float32 [len(ids), vocab]."""
    comparison = Comparison()
    total = sum(len(ids) - 1 for ids in sequences)
    kept = []
    for slot, ids in enumerate(sequences):
        expected = reference(slot, ids)
        settled = len(ids) - DECODED
        for past, part in chunks(ids[:settled], CHUNK):
            end = past + len(part)
            ours = torch.from_numpy(runner.chunk(slot, part, past))
            comparison.add(ours, expected[past:end], ids[past + 1 : end + 1])
            progress(comparison.tokens, total)
        kept.append(expected[settled:].clone())
    for ours, expected, following in _decoded(runner, sequences, kept):
        comparison.add(ours, expected, following)
        progress(comparison.tokens, total)
    return comparison.numbers()


def _decoded(
    runner: SlotRunner, sequences: list[list[int]], kept: list[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """Step by step the last tokens of all sequences: our logits, the reference's, the next ids."""
    for step in range(DECODED - 1):
        lengths = [len(ids) - DECODED + step for ids in sequences]
        tokens = [ids[length] for ids, length in zip(sequences, lengths, strict=True)]
        ours = torch.from_numpy(runner.decode(tokens, lengths))
        following = [ids[length + 1] for ids, length in zip(sequences, lengths, strict=True)]
        yield ours, torch.stack([expected[step] for expected in kept]), following


def check(variant: str, numbers: ParityNumbers) -> None:
    """Raises ParityError naming the first number that is over the variant's LIMITS, and the limit."""
    check_numbers(variant, numbers, LIMITS[variant])


def check_numbers(variant: str, numbers: ParityNumbers, limits: Limits) -> None:
    """`check` with limits of one's own."""
    ratio = max(numbers.perplexity_ratio, 1 / numbers.perplexity_ratio)
    checks = [
        ("largest logit difference", numbers.max_logit_difference, limits.max_logit_difference, False),
        ("greedy agreement", numbers.greedy_agreement, limits.greedy_agreement, True),
        ("mean KL divergence", numbers.kl_divergence, limits.kl_divergence, False),
        ("perplexity ratio", ratio, limits.perplexity_ratio, False),
    ]
    for name, value, limit, at_least in checks:
        if limit is not None and not (value >= limit if at_least else value <= limit):
            raise ParityError(
                f"The {variant} graph differs too much from the checkpoint: its {name} is {value:.6g},"
                f" the limit {limit:g}. Try another --variant;"
                " if fp32 fails too, the exporter is wrong for this model."
            )
