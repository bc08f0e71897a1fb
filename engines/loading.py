"""Bundle to running engine: open the graph, check its goldens, warm it up. Knows no socket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from basert.errors import BundleError
from basert.manifest import TOKENIZER, Graph, Manifest, digest, read_manifest
from basert.messages import EngineInfo
from engines.batch import Chunks
from engines.compiling import Compiling
from engines.engine import Engine, Publish
from engines.golden import check, read_golden
from engines.prefix_file import PrefixFile
from engines.runner import Runner
from engines.scheduler import Limits, Scheduler
from engines.sessions import SessionOptions, open_session
from engines.slots import Slots
from engines.stats import Counters

# Longer chunks are no faster on a CPU. How long one may be while streams wait for it, engines.pace says.
LONGEST_CHUNK = 512
# Where last bits depend on a prompt's cut (no draft_buckets), it follows the prompt's length alone.
LONGEST_UNPACED = 128
LONGEST_SCORED = 128
# The logits of a chunk whose every position is scored take at most so many bytes.
SCORE_BYTES = 32 << 20

Report = Callable[[str, float], None]  # stage ("loading", "checking"), how far


@dataclass(frozen=True)
class EngineConfig:
    """What an operator chooses; 0 and "" leave it to the bundle or the machine."""

    bundle: Path
    name: str = ""
    slots: int = 0
    max_context: int = 0
    max_queue: int = 256
    threads: int = 0
    spin: bool = True
    provider: str = ""
    profile: str = ""  # where the runtime is to keep a profile of its runs; "": none
    prefix_cache: bool = True
    speculation: bool = True
    prefix_cache_file: Path | None = None


def load(config: EngineConfig, publish: Publish, report: Report) -> tuple[Engine, EngineInfo]:
    """Raises BundleError when the bundle cannot be run as asked."""
    started = time.monotonic()
    report("loading", 0.0)
    manifest = read_manifest(config.bundle)
    graph = _graph(manifest, config.provider)
    options = _options(config, manifest)
    session = open_session(config.bundle / graph.path, graph, manifest.kv_cache, options)
    longest = LONGEST_CHUNK if graph.draft_buckets else LONGEST_UNPACED
    chunks = Chunks(graph.chunk_buckets, longest, options.max_context)
    score_chunks = Chunks(graph.chunk_buckets, _scored(manifest.vocab_size), options.max_context)
    runner = Runner(session, manifest.vocab_size, max(options.slots, score_chunks.longest))
    report("checking", 0.5)
    golden = read_golden(config.bundle)
    check(golden, runner, chunks)
    runner.run_seconds = 0.0  # the check is no step
    slots = Slots(options.slots, graph.batch_buckets, keep=config.prefix_cache)
    counters = Counters()
    drafts = graph.draft_buckets if config.speculation else []
    scheduler = Scheduler(
        slots,
        chunks,
        score_chunks,
        _limits(config, options, manifest),
        counters,
        drafts,
        paced=bool(graph.draft_buckets),
    )
    recheck = partial(_recheck, slots, partial(check, golden, runner, chunks))
    save = _prefix_file(config, slots, runner)
    compiling = Compiling(config.bundle / TOKENIZER, manifest.vocab_size, frozenset(manifest.eos_token_ids))
    engine = Engine(slots, scheduler, runner, counters, compiling, recheck, publish, save)
    return engine, _info(config, options, manifest, runner.provider, time.monotonic() - started)


def _prefix_file(config: EngineConfig, slots: Slots, runner: Runner) -> Callable[[], None]:
    """Fill the slots from the file that an earlier engine left, if any; what leaves one for the next."""
    if config.prefix_cache_file is None or not config.prefix_cache:
        return lambda: None
    file = PrefixFile(config.prefix_cache_file, digest(config.bundle), slots.prefixes, runner)
    file.read()
    return file.write


def _limits(config: EngineConfig, options: SessionOptions, manifest: Manifest) -> Limits:
    return Limits(
        max_queue=config.max_queue,
        max_context=options.max_context,
        vocab_size=manifest.vocab_size,
        eos=frozenset(manifest.eos_token_ids),
    )


def _info(
    config: EngineConfig, options: SessionOptions, manifest: Manifest, provider: str, load_seconds: float
) -> EngineInfo:
    return EngineInfo(
        model=config.name or manifest.name,
        digest=digest(config.bundle),
        provider=provider,
        slots=options.slots,
        max_context=options.max_context,
        vocab_size=manifest.vocab_size,
        max_queue=config.max_queue,
        pid=os.getpid(),
        load_seconds=load_seconds,
    )


def _graph(manifest: Manifest, provider: str) -> Graph:
    targets = {graph.target: graph for graph in manifest.graphs if graph.role == "decoder"}
    if not targets:
        raise BundleError(f"{manifest.name} has no decoder graph; export it again.")
    if provider and provider not in targets:
        raise BundleError(
            f"{manifest.name} has no graph for {provider!r}, only for {', '.join(targets)}; "
            "ask for one of these, or export it again."
        )
    return targets[provider] if provider else next(iter(targets.values()))


def _options(config: EngineConfig, manifest: Manifest) -> SessionOptions:
    max_context = config.max_context or manifest.max_context
    if max_context > manifest.max_context:
        raise BundleError(
            f"{manifest.name} was exported for {manifest.max_context} tokens of context, not {max_context}; "
            f"ask for less, or export it again with --max-context {max_context}."
        )
    if max_context < 2 or config.slots < 0:
        raise BundleError("An engine needs a context of at least 2 tokens and at least 1 slot.")
    return SessionOptions(
        config.slots or manifest.slots, max_context, config.threads, config.spin, config.profile
    )


def _scored(vocab_size: int) -> int:
    return max(8, min(LONGEST_SCORED, SCORE_BYTES // (4 * vocab_size)))


def _recheck(slots: Slots, check_in: Callable[[int], None]) -> None:
    """The goldens once more, in a free row; the failed batch has just left at least one. Nobody knows what it
    left in the rows, so that free ones count for empty."""
    slots.forget()
    check_in(slots.owners.index(None))
