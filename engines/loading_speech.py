"""A speech model's bundle to its running engine: a decoder's, with a listener and with Whisper's rules."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from basert.errors import BundleError
from basert.manifest import Graph, KVCache
from engines.base import Publish
from engines.batch import Chunks
from engines.buckets import Bucket
from engines.choosing import Time, fastest
from engines.engine import Engine
from engines.golden import check_speech, read_speech_golden
from engines.hearing import Hearing
from engines.listener import Listener
from engines.loading import AUTO, Start, graphs_for
from engines.loading_decoder import LONGEST_UNPACED, compiling_of, limits_of, recheck
from engines.runner import Runner
from engines.sampling import Sampler
from engines.scheduler import Scheduler
from engines.slots import Slots
from engines.speech_rules import SpeechRules
from engines.stats import Counters
from engines.windows import refuse_silence

# Tokens of a prompt. Most are that short, and a chunk takes twice as long as a decode step (4.9 ms and 2.5,
# Whisper tiny.en in 8 bits on two cores), in which one more row hardly counts (0.6 ms).
STEPPED = 4


def load_speech(start: Start, publish: Publish) -> tuple[Engine, str]:
    """The engine, and what runs it. Raises BundleError when the bundle cannot be run as asked."""
    manifest, options = start.manifest, start.options
    if (speech := manifest.speech) is None or not manifest.eos_token_ids:
        raise BundleError(f"{manifest.name} does not say what its tokens mean; export it again.")
    [graph] = graphs_for(manifest, AUTO, "decoder")[:1]
    chosen = _listener_graph(start)
    listener = Listener(start.open(chosen), chosen, options.slots)
    hearing = Hearing(listener, graph, speech, options.slots)
    runner = Runner(start.open(graph), manifest.vocab_size, 2 * options.slots, hearing)
    chunks = Chunks(graph.chunk_buckets, LONGEST_UNPACED, options.max_context)
    start.report("checking", 0.5)
    golden = read_speech_golden(start.config.bundle)
    check = partial(check_speech, golden, chosen.target, speech, runner, chunks)
    check()
    runner.run_seconds = listener.seconds = 0.0  # the check is no step
    heard = listener.row_bytes // _token_bytes(manifest.kv_cache)
    slots = Slots(options.slots, graph.batch_buckets, keep=False, window=heard)
    counters = Counters()
    limits = limits_of(start, partial(refuse_silence, speech), speech.sot)
    scheduler = Scheduler(slots, chunks, chunks, limits, counters, paced=False, stepped=STEPPED)
    sampler = Sampler(counters, SpeechRules(speech, min(manifest.eos_token_ids)))
    again = partial(recheck, slots, check)
    engine = Engine(
        slots, scheduler, runner, counters, sampler, compiling_of(start), again, publish, lambda: None
    )
    return engine, ", ".join(dict.fromkeys([listener.provider, runner.provider]))


def _token_bytes(kv: KVCache) -> int:
    sizes = zip(kv.kv_heads, kv.head_dim, strict=True)
    return 2 * np.dtype(kv.dtype).itemsize * sum(heads * dim for heads, dim in sizes)


def _listener_graph(start: Start) -> Graph:
    """The bundle's graph for this host."""
    graphs = start.graphs
    if len(graphs) == 1:
        return graphs[0]

    def open_graph(graph: Graph) -> Time:
        return partial(_time, Listener(start.open(graph), graph, slots=1))

    return fastest(graphs, open_graph, start.compiled(graphs[0]), threads=str(start.options.threads))


def _time(listener: Listener, _bucket: Bucket) -> float:
    started = time.perf_counter()
    listener.hear(0, bytes(listener.window_bytes))
    return time.perf_counter() - started
