"""A decoder's bundle to its running engine: open the graph, check its goldens, fill the prefix cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from basert.errors import BundleError
from basert.manifest import TOKENIZER, digest
from basert.messages import Submit
from engines.adapters import Adapters
from engines.base import Publish
from engines.batch import Chunks
from engines.compiling import Compiling
from engines.engine import Engine
from engines.golden import check, read_golden
from engines.loading import Start
from engines.prefix_file import PrefixFile
from engines.runner import Runner
from engines.sampling import Sampler
from engines.scheduler import Limits, Scheduler
from engines.sessions import Session
from engines.slots import Slots
from engines.stats import Counters
from engines.windows import refuse_sound

# Longer chunks are no faster on a CPU. How long one may be while streams wait for it, engines.pace says.
LONGEST_CHUNK = 512
# Where last bits depend on a prompt's cut (no draft_buckets), it follows the prompt's length alone.
LONGEST_UNPACED = 128
LONGEST_SCORED = 128
# The logits of a chunk whose every position is scored take at most so many bytes.
SCORE_BYTES = 32 << 20

_log = logging.getLogger(__name__)


def load_decoder(start: Start, publish: Publish) -> tuple[Engine, str]:
    """The engine, and what runs it. Raises BundleError when the bundle cannot be run as asked."""
    config, manifest, graph, options = start.config, start.manifest, start.graphs[0], start.options
    session = start.open(graph)
    longest = LONGEST_CHUNK if graph.draft_buckets else LONGEST_UNPACED
    chunks = Chunks(graph.chunk_buckets, longest, options.max_context)
    score_chunks = Chunks(graph.chunk_buckets, _scored(manifest.vocab_size), options.max_context)
    adapters = _adapters(start, session)
    runner = Runner(session, manifest.vocab_size, max(options.slots, score_chunks.longest), adapters=adapters)
    start.report("checking", 0.5)
    golden = read_golden(config.bundle)
    check(golden, runner, chunks)
    runner.run_seconds = 0.0  # the check is no step
    slots = Slots(options.slots, graph.batch_buckets, keep=config.prefix_cache)
    counters = Counters()
    scheduler = Scheduler(
        slots,
        chunks,
        score_chunks,
        limits_of(start),
        counters,
        graph.draft_buckets if config.speculation else [],
        paced=bool(graph.draft_buckets),
        adapters=adapters,
    )
    check_again = partial(recheck, slots, partial(check, golden, runner, chunks))
    save = _prefix_file(start, slots, runner)
    sampler, compiling = Sampler(counters), compiling_of(start)
    engine = Engine(
        slots, scheduler, runner, counters, sampler, compiling, check_again, publish, save, adapters
    )
    return engine, runner.provider


def _adapters(start: Start, session: Session) -> Adapters | None:
    """With those of the configuration; one that cannot be loaded is left out, and the log says why."""
    config, manifest, target = start.config, start.manifest, start.graphs[0].target
    graphs = [one for one in manifest.graphs if (one.role, one.target) == ("decoder-lora", target)]
    if manifest.lora is None or not graphs:
        return None
    adapters = Adapters(
        manifest, config.max_adapters, partial(start.open_beside, session, graphs[0]), start.wake
    )
    for path in config.adapters:
        try:
            adapters.load_now(path)
        except BundleError as error:
            _log.error("%s is not served: %s", path, error.message)
    return adapters


def _prefix_file(start: Start, slots: Slots, runner: Runner) -> Callable[[], None]:
    """Fill the slots from the file that an earlier engine left, if any; what leaves one for the next."""
    config = start.config
    if config.prefix_cache_file is None or not config.prefix_cache:
        return lambda: None
    file = PrefixFile(config.prefix_cache_file, digest(config.bundle), slots.prefixes, runner)
    file.read()
    return file.write


def compiling_of(start: Start) -> Compiling:
    manifest = start.manifest
    tokenizer, eos = start.config.bundle / TOKENIZER, frozenset(manifest.eos_token_ids)
    return Compiling(tokenizer, manifest.vocab_size, eos)


def limits_of(start: Start, refuse: Callable[[Submit], str] = refuse_sound, sot: int = -1) -> Limits:
    """refuse, sot: see Limits."""
    return Limits(
        max_queue=start.config.max_queue,
        max_context=start.options.max_context,
        vocab_size=start.manifest.vocab_size,
        eos=frozenset(start.manifest.eos_token_ids),
        refuse_sound=refuse,
        sot=sot,
    )


def _scored(vocab_size: int) -> int:
    return max(8, min(LONGEST_SCORED, SCORE_BYTES // (4 * vocab_size)))


def recheck(slots: Slots, check_in: Callable[[int], None]) -> None:
    """The goldens once more, in a free row; the failed batch has just left at least one. Nobody knows what it
    left in the rows, so that free ones count for empty."""
    slots.forget()
    check_in(slots.owners.index(None))
