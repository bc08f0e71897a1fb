"""The parity gate of encoders: an exported graph against transformers in fp32, on real text.

The graph runs as the engine runs it: texts of all lengths share batches, padded on the right. The reference
gets every text alone, without padding, and finds its positions itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from basert.errors import ParityError
from basert.manifest import EncoderParity
from basert.progress import Show
from export.encoders.module import EncoderModule, load_model
from export.encoders.runner import EncoderRunner, Input, Values
from export.encoders.settings import read_settings
from export.encoders.task import EMBEDDING

ROWS = 8  # inputs of a batch


class Limits(msgspec.Struct, frozen=True):
    """What an export may differ by."""

    difference: float  # the largest of any number, in standard deviations of all answers' numbers; at most
    min_cosine: float  # at least, as the others
    mean_cosine: float
    rank_agreement: float


LIMITS = {
    "fp32": Limits(0.005, 1 - 1e-5, 1 - 1e-6, 0.9999),
    "w8a8": Limits(1.0, 0.97, 0.985, 0.97),
}


class Measured(msgspec.Struct, frozen=True):
    numbers: EncoderParity
    spread: float  # standard deviation of the reference's numbers


class Reference:
    """transformers' own model in fp32, one text at a time."""

    def __init__(self, checkpoint: Path, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        settings = read_settings(checkpoint)
        self._module = EncoderModule(load_model(checkpoint, settings.task), settings).eval()

    def encode(self, one: Input) -> Values:
        """float32 [width]"""
        ids, types = torch.tensor([one.ids]), torch.tensor([one.types])
        more: dict[str, Any] = {"token_type_ids": types} if any(one.types) else {}
        mask = torch.ones_like(ids)
        with torch.no_grad():
            answer = self._module.model(input_ids=ids, attention_mask=mask, **more)
            values: Values = self._module.finish(answer, mask)[0].numpy()
        return values

    def encode_all(self, inputs: Sequence[Input], progress: Show) -> Values:
        """float32 [inputs, width]"""
        answers = []
        for done, one in enumerate(inputs):
            progress(done, len(inputs))
            answers.append(self.encode(one))
        progress(len(inputs), len(inputs))
        return np.stack(answers)


def measure(runner: EncoderRunner, groups: Sequence[Sequence[Input]], expected: Values) -> Measured:
    """What a graph answers, compared with the reference. What is in one group is ranked against each other.

    expected: the reference's answers to all inputs, float32 [inputs, width].
    """
    inputs = [one for group in groups for one in group]
    batches = [inputs[start : start + ROWS] for start in range(0, len(inputs), ROWS)]
    ours = np.concatenate([runner.encode(batch) for batch in batches])
    if not np.isfinite(ours).all():
        raise ParityError(
            "The exported graph answers what is no number (NaN, infinity); try another --variant."
        )
    return compare(ours, expected, [len(group) for group in groups], runner.graph.encoder.task)


def compare(ours: Values, expected: Values, groups: Sequence[int], task: str) -> Measured:
    """Both float32 [inputs, width]; groups: sizes of the groups that inputs come in, in order."""
    vectors = (ours, expected) if task == EMBEDDING else (_centred(ours).T, _centred(expected).T)
    cosines = _cosines(*vectors)
    ends = np.cumsum(groups)
    parts = [slice(end - size, end) for end, size in zip(ends, groups, strict=True)]
    agreements = [
        _spearman(left, right)
        for part in parts
        for left, right in zip(*(_scores(values[part], task) for values in (ours, expected)), strict=True)
    ]
    numbers = EncoderParity(
        texts=len(ours),
        max_difference=float(np.abs(ours - expected).max()),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        rank_agreement=float(np.mean(agreements)),
    )
    return Measured(numbers, float(expected.std()))


def check(variant: str, measured: Measured) -> None:
    """Raises ParityError naming the first number that is over the variant's LIMITS, and the limit."""
    limits, numbers = LIMITS[variant], measured.numbers
    difference = numbers.max_difference / max(measured.spread, 1e-12)
    checks = [
        ("largest difference, in standard deviations,", difference, limits.difference, False),
        ("least cosine", numbers.min_cosine, limits.min_cosine, True),
        ("mean cosine", numbers.mean_cosine, limits.mean_cosine, True),
        ("rank agreement", numbers.rank_agreement, limits.rank_agreement, True),
    ]
    for name, value, limit, at_least in checks:
        if not (value >= limit if at_least else value <= limit):
            raise ParityError(
                f"The {variant} graph differs too much from the checkpoint: its {name} is {value:.6g},"
                f" the limit {limit:g}. Try another --variant;"
                " if fp32 fails too, the exporter is wrong for this model."
            )


def _scores(values: Values, task: str) -> Values:
    """What is ranked, a row for each ranking: for a text all others by similarity; for a label all inputs."""
    if task != EMBEDDING:
        return values.T
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    others = ~np.eye(len(values), dtype=bool)
    rows: Values = similarity[others].reshape(len(values), -1)
    return rows


def _centred(values: Values) -> Values:
    """Logits of each label around their mean: what all inputs have in common says nothing."""
    centred: Values = values - values.mean(axis=0)
    return centred


def _cosines(left: Values, right: Values) -> Values:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Values = (left * right).sum(axis=1, dtype=np.float64) / np.maximum(norms, 1e-30)
    return cosines


def _spearman(left: Values, right: Values) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
