"""What can be measured of an encoder: texts per second by request size and clients, and its buckets."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from basert.bench.cells import Cell
from basert.bench.embedding import run
from basert.bench.engine import Bucket
from basert.bench.load import Outcome, crowd
from basert.bench.results import BucketCost, Embeddings, Percentiles, Report, Spread
from basert.bench.sentences import Sentences
from basert.client import Client, RequestFailed


@dataclass(frozen=True)
class Texts:
    """What is asked of an encoder."""

    client: Client
    model: str
    sentences: Sentences


class EmbedCell(Cell[tuple[list[Outcome], float], Texts]):
    """`concurrency` clients go through all sentences together, in requests of `inputs`.

    A sample is (outcomes, seconds from the first sent to the last answered).
    """

    def __init__(self, inputs: int, concurrency: int) -> None:
        super().__init__()
        self.inputs, self.concurrency = inputs, concurrency

    async def measure(self, workload: Texts) -> tuple[list[Outcome], float]:
        bodies = workload.sentences.bodies(workload.model, self.inputs)
        outcomes, seconds = await crowd(workload.client, bodies, self.concurrency, run)
        if not any(one.vectors for one in outcomes):
            raise RequestFailed(next((one.error for one in outcomes if one.error), "it answers no vectors."))
        return outcomes, seconds

    def report(self, report: Report) -> None:
        everything = [outcome for outcomes, _ in self.samples for outcome in outcomes]
        answered = [outcome for outcome in everything if outcome.vectors]
        report.embeddings.append(
            Embeddings(
                inputs=self.inputs,
                concurrency=self.concurrency,
                requests=len(answered),
                errors=Counter(outcome.error for outcome in everything if outcome.error),
                texts_per_second=Spread.of(
                    [sum(len(one.vectors) for one in ones) / seconds for ones, seconds in self.samples]
                ),
                whole_request=Percentiles.of_seconds([one.arrivals[-1] - one.sent for one in answered]),
            )
        )


def cells_of(
    inputs: Sequence[int], concurrencies: Sequence[int], texts: int, skipped: list[str]
) -> list[EmbedCell]:
    """A cell for each pair; adds a line to `skipped` for request sizes that are more than all texts."""
    skipped += [f"requests of {size} texts: there are {texts}" for size in inputs if size > texts]
    sizes = [size for size in inputs if size <= texts]
    return [EmbedCell(*pair) for pair in itertools.product(sizes, concurrencies)]


def costs(before: Sequence[Bucket], after: Sequence[Bucket]) -> list[BucketCost]:
    """Of the buckets that ran between two readings."""
    return [
        BucketCost(
            rows=one.rows,
            tokens=one.tokens,
            runs=int(one.runs),
            inputs=int(one.inputs),
            input_tokens=int(one.input_tokens),
            run_seconds=one.run_seconds,
        )
        for one in Bucket.since(before, after)
        if one.runs
    ]
