"""An encoder's bundle to its running engine: open the graph, time each bucket, check the goldens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import Encoder, EncoderCase, Graph
from engines.base import Publish
from engines.buckets import Bucket, Costs
from engines.choosing import Time, fastest, samples
from engines.encoder import EncoderEngine
from engines.encoder_runner import EncoderRunner, Row
from engines.golden import check_encoder, read_encoder_golden
from engines.inputs import Accepted
from engines.loading import Start
from engines.packing import Queue

SAMPLES = 3  # timed runs of a bucket, after its first
TIMING_SECONDS = 2.0  # that these may take in all; the largest buckets may get none
REPORTS = 4  # while buckets are run for the first time


def load_encoder(start: Start, publish: Publish) -> tuple[EncoderEngine, str]:
    """The engine, and what runs it. Raises BundleError when the bundle cannot be run as asked."""
    config, manifest = start.config, start.manifest
    if (encoder := manifest.encoder) is None:
        raise BundleError(f"{manifest.name} does not say what it encodes; export it again.")
    max_tokens = min(start.options.max_context, encoder.max_tokens)
    graph = _graph(start, encoder)
    buckets = fitting(graph, max_tokens)
    runner = _runner(start, graph, buckets, encoder)
    costs = Costs(warm(runner.time, buckets, lambda done: start.report("checking", 0.1 + 0.8 * done)))
    golden, answer = read_encoder_golden(config.bundle), partial(_answer, runner, costs)
    check = partial(check_encoder, golden, graph.target, answer, max_tokens)
    check()
    accepted = Accepted(manifest.vocab_size, max_tokens, encoder.token_types)
    engine = EncoderEngine(
        Queue(costs), runner, accepted, config.max_queue, config.batch_wait, check, publish, start.wake
    )
    return engine, runner.provider


def _graph(start: Start, encoder: Encoder) -> Graph:
    """The bundle's graph for this host."""
    graphs = start.graphs
    if len(graphs) == 1:
        return graphs[0]

    def open_graph(graph: Graph) -> Time:
        return _runner(start, graph, samples(_buckets(graph)), encoder).time

    threads = str(start.options.threads)
    return fastest(graphs, open_graph, start.compiled(graphs[0]), threads=threads)


def _runner(start: Start, graph: Graph, buckets: Sequence[Bucket], encoder: Encoder) -> EncoderRunner:
    names = [tensor.name for tensor in graph.inputs]
    return EncoderRunner(start.open(graph), buckets, encoder.width, names)


def _buckets(graph: Graph) -> list[Bucket]:
    return [Bucket(*shape) for shape in graph.shapes]


def fitting(graph: Graph, max_tokens: int) -> list[Bucket]:
    """The buckets that inputs of up to `max_tokens` need. Raises BundleError when one fits into none."""
    buckets = _buckets(graph)
    longest = min((bucket.tokens for bucket in buckets if bucket.tokens >= max_tokens), default=0)
    if not longest:
        raise BundleError(f"{graph.path} has no bucket for {max_tokens} tokens; export the model again.")
    return [bucket for bucket in buckets if bucket.tokens <= longest]


def warm(
    run: Callable[[Bucket], float], buckets: Sequence[Bucket], report: Callable[[float], None]
) -> dict[Bucket, float]:
    """Run every bucket, and return what a run of each takes, in seconds: the least of a few, since what else
    goes on in a machine that starts can only add to it.

    run: runs a bucket for its time; report: is told the share of first runs that are done. The largest go
    first, so that the runtime's memory grows once.
    """
    ordered = sorted(buckets, key=lambda bucket: bucket.size, reverse=True)
    first = {}
    for number, bucket in enumerate(ordered):
        if number * REPORTS // len(ordered) != (number - 1) * REPORTS // len(ordered):
            report(number / len(ordered))
        first[bucket] = run(bucket)
    samples: dict[Bucket, list[float]] = {bucket: [] for bucket in ordered}
    until = time.monotonic() + TIMING_SECONDS
    for _ in range(SAMPLES):
        for bucket in reversed(ordered):
            if time.monotonic() < until:
                samples[bucket].append(run(bucket))
    return _estimates({bucket: min(some) for bucket, some in samples.items() if some}, first)


def _estimates(timed: Mapping[Bucket, float], first: Mapping[Bucket, float]) -> dict[Bucket, float]:
    """Of a bucket that was not timed: in proportion to its tokens from the nearest that was, but no more than
    its first run took, in which the runtime got memory, too."""
    estimates = dict(timed)
    for bucket in first.keys() - timed.keys():
        nearest = min(timed, key=lambda other: abs(other.size - bucket.size), default=bucket)
        estimates[bucket] = min(
            first[bucket], estimates.get(nearest, first[nearest]) * bucket.size / nearest.size
        )
    return estimates


def _answer(runner: EncoderRunner, costs: Costs, case: EncoderCase) -> NDArray[np.float32]:
    """To a golden case, alone: [width]."""
    types = np.array(case.token_types, np.int64) if case.token_types else None
    row = Row(np.array(case.ids, np.int64), types)
    values: NDArray[np.float32] = runner.encode(costs.choices(len(row.ids))[0].bucket, [row])[0]
    return values
