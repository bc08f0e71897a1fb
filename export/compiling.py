"""From the fp32 slot graph to a variant's: rotate, calibrate, passes, cache, each a step of the export."""

from __future__ import annotations

from pathlib import Path

from basert.progress import Show
from export.calibration import CALIBRATION, cache_maxima, calibrate
from export.prepare import weight_bytes
from export.steps import Step, Steps
from export.variants import (
    ROTATED,
    build_int8_cache,
    build_rotated,
    build_variant,
    choose_cache_bits,
    needs_calibration,
)
from export.workspace import require_space, size_of


class Compiler:
    """Makes variants of one fp32 graph."""

    def __init__(self, steps: Steps, checkpoint: Path, graph: Step, kv_bits: str) -> None:
        self.steps, self.checkpoint, self.graph, self.kv_bits = steps, checkpoint, graph, kv_bits
        self._compiled: dict[str, Step] = {}

    def compile(self, variant: str) -> Step:
        """The variant's graph, with the cache that belongs to it; made once."""
        if variant not in self._compiled:
            self._compiled[variant] = self._compile(variant)
        return self._compiled[variant]

    def _compile(self, variant: str) -> Step:
        graph = self.graph
        source = self._rotate(graph) if variant in ROTATED else graph
        seen = self._calibrate(source) if needs_calibration(variant) else None
        compiled = self._passes(variant, source, seen)
        if choose_cache_bits(self.kv_bits, variant) == 8:
            return self._cache(variant, compiled)
        return compiled

    def _rotate(self, graph: Step) -> Step:
        def make(out: Path, _: Show) -> None:
            require_space(out, size_of(graph.folder), "the rotated graph")
            build_rotated(graph.folder, out)

        return self.steps.run("rotate", [graph.key], make)

    def _calibrate(self, graph: Step) -> Step:
        def make(out: Path, show: Show) -> None:
            calibrate(self.checkpoint, graph.folder, out, show)

        return self.steps.run(f"calibrate-{graph.folder.name}", [graph.key], make)

    def _passes(self, variant: str, graph: Step, calibration: Step | None) -> Step:
        def make(out: Path, show: Show) -> None:
            require_space(out, weight_bytes(self.checkpoint), f"the {variant} graph")
            seen = calibration.folder / CALIBRATION if calibration else None
            build_variant(variant, graph.folder, seen, out, show)

        inputs = [step.key for step in (graph, calibration) if step]
        return self.steps.run(f"passes-{variant}", inputs, make)

    def _cache(self, variant: str, compiled: Step) -> Step:
        def make(out: Path, show: Show) -> None:
            require_space(out, size_of(compiled.folder), "the graph with an int8 cache")
            build_int8_cache(compiled.folder, cache_maxima(self.checkpoint, compiled.folder, show), out)

        return self.steps.run(f"cache-{variant}", [compiled.key], make)
