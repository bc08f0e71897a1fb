"""Bundle to running engine, by the family of its model. Knows no socket; imports what the family needs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from basert.errors import BundleError
from basert.manifest import Graph, KVCache, Manifest, digest, read_manifest
from basert.messages import EngineInfo
from engines.base import BaseEngine, Publish
from engines.compiled import Compiled
from engines.sessions import Session, SessionOptions, open_session, why_not

AUTO = "auto"
# What of a family's graphs an operator chooses a provider for; a speech model's decoder has one.
ROLES = {"speech": "listener"}

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
    provider: str = AUTO
    profile: str = ""  # where the runtime is to keep a profile of its runs; "": none
    prefix_cache: bool = True
    speculation: bool = True
    prefix_cache_file: Path | None = None
    compiled: Path | None = None  # where what runtimes compile is kept; None: in the bundle
    batch_wait: float = 0.0  # seconds that an encoder's input may wait for company
    adapters: tuple[Path, ...] = ()  # bundles to load with the model
    max_adapters: int = 8  # that may be loaded at once


@dataclass(frozen=True)
class Start:
    """A start under way: what every family's loader is given."""

    config: EngineConfig
    manifest: Manifest
    graphs: list[Graph]  # that may be run: the first one, or whichever is the fastest here
    options: SessionOptions
    report: Report
    wake: Callable[[], None]  # ends the main thread's wait for messages; from any thread

    def open(self, graph: Graph) -> Session:
        """Raises BundleError."""
        path, compiled = self.config.bundle / graph.path, self.compiled(graph)
        options = dataclasses.replace(self.options, compiled=compiled)
        kv = self.manifest.kv_cache if graph.role == "decoder" else KVCache("float32", [], [])
        return open_session(path, graph, kv, options)

    def open_beside(self, session: Session, graph: Graph) -> Session:
        """Over the same cache. Raises BundleError."""
        return session.beside(self.config.bundle / graph.path, self.options)

    def compiled(self, graph: Graph) -> Compiled:
        return Compiled(self.config.bundle, self.manifest, graph, self.config.compiled)


def load(
    config: EngineConfig, publish: Publish, report: Report, wake: Callable[[], None] = lambda: None
) -> tuple[BaseEngine, EngineInfo]:
    """wake: see Start. Raises BundleError when the bundle cannot be run as asked."""
    started = time.monotonic()
    report("loading", 0.0)
    manifest = read_manifest(config.bundle)
    graphs = graphs_for(manifest, config.provider, ROLES.get(manifest.family, manifest.family))
    start = Start(config, manifest, graphs, _options(config, manifest), report, wake)
    engine: BaseEngine
    if manifest.family == "encoder":
        from engines.loading_encoder import load_encoder

        engine, provider = load_encoder(start, publish)
    elif manifest.family == "speech":
        from engines.loading_speech import load_speech

        engine, provider = load_speech(start, publish)
    else:
        from engines.loading_decoder import load_decoder

        engine, provider = load_decoder(start, publish)
    return engine, _info(start, engine, provider, time.monotonic() - started)


def graphs_for(manifest: Manifest, provider: str, role: str) -> list[Graph]:
    """The graph in this role for a provider; for "auto" every one that can be run on this host, or else the
    first.

    Raises BundleError.
    """
    targets = {graph.target: graph for graph in manifest.graphs if graph.role == role}
    if not targets:
        raise BundleError(f"{manifest.name} has no {role} graph; export it again.")
    if provider in ("", AUTO):
        here = [graph for target, graph in targets.items() if not why_not(target)]
        return here or list(targets.values())[:1]  # of none, the session says why
    if provider not in targets:
        raise BundleError(
            f"{manifest.name} has no graph for {provider!r}, only for {', '.join(targets)}; "
            "ask for one of these, or export it again."
        )
    return [targets[provider]]


def _info(start: Start, engine: BaseEngine, provider: str, load_seconds: float) -> EngineInfo:
    config, manifest = start.config, start.manifest
    return EngineInfo(
        model=config.name or manifest.name,
        digest=digest(config.bundle),
        provider=provider,
        slots=start.options.slots,
        max_context=start.options.max_context,
        vocab_size=manifest.vocab_size,
        max_queue=config.max_queue,
        pid=os.getpid(),
        load_seconds=load_seconds,
        adapters=engine.adapters,
    )


def _options(config: EngineConfig, manifest: Manifest) -> SessionOptions:
    max_context = config.max_context or manifest.max_context
    if manifest.family == "encoder":  # whose own limit is often less than what is wanted of models beside it
        max_context = min(max_context, manifest.max_context)
    if max_context > manifest.max_context:
        raise BundleError(
            f"{manifest.name} was exported for {manifest.max_context} tokens of context, not {max_context}; "
            f"ask for less, or export it again with --max-context {max_context}."
        )
    if max_context < 2 or config.slots < 0:
        raise BundleError("An engine needs a context of at least 2 tokens and at least 1 slot.")
    slots = manifest.slots if manifest.family == "encoder" else config.slots or manifest.slots
    return SessionOptions(slots, max_context, config.threads, config.spin, config.profile)
