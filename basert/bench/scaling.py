"""`python -m basert.bench.scaling [PROFILE.json]`: what a step should cost, by a roofline model.

A step multiplies every token by every weight, reading each weight once; then every token attends to its row's
cache, reading that once. Each of the two takes what memory or arithmetic would take, whichever is longer. One
comes after the other, and to them a moment for each node of the graph.

With a file of `basert bench smollm2 --profile --json` it prints what was measured beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from basert.bench.tables import table
from basert.profile import Profile


@dataclass(frozen=True)
class Model:
    """A decoder, as far as its cost goes."""

    name: str
    weights: float  # multiplied with every token; the table of embeddings is not, unless it is the head too
    weight_bytes: float  # of each
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    cache_bytes: float  # of each number in the cache
    nodes: int  # of the graph in a decode step

    @property
    def cached(self) -> float:
        """Bytes of a token in the cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.cache_bytes

    def attention_operations(self, tokens: int, context: int) -> float:
        return 4 * self.layers * self.heads * self.head_dim * tokens * context


@dataclass(frozen=True)
class Machine:
    """Bytes and operations per second (an addition and a multiplication are two), and seconds per node."""

    name: str
    bandwidth: float
    linear: float
    attention: float  # of decode steps
    chunk_attention: float
    node: float


SMOLLM2 = Model("SmolLM2 135M, W8A8", 134.5e6, 1, 30, 9, 3, 64, 1, 1020)
MODELS = (
    SMOLLM2,
    Model("1.2B (Llama 3.2), W8A8", 1.24e9, 1, 16, 32, 8, 64, 1, 560),
    Model("8B (Llama 3.1), W8A8", 7.5e9, 1, 32, 32, 8, 128, 1, 1090),
)
# What two AMX cores did, each measured apart from any model: reading, 8-bit products of 512 tokens, attention
# on an int8 cache in decode (32 rows of 1,024) and in chunks, the dispatch of a node.
CORES = Machine("2 AMX cores", 27e9, 1.2e12, 33e9, 185e9, 1.4e-6)
# An H100's data sheet: 3.35 TB/s, 990 TFLOP/s in 16 bits; a captured graph's launch. Nothing of this was run.
GPU = Machine("one H100 (data sheet)", 3.35e12, 990e12, 400e12, 400e12, 1.5e-6)


@dataclass(frozen=True)
class Part:
    """Seconds that memory and arithmetic would take, if each were alone."""

    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.arithmetic)


@dataclass(frozen=True)
class Cost:
    """One step."""

    linear: Part
    attention: Part
    dispatch: float  # seconds

    @property
    def step(self) -> float:
        """Seconds."""
        return self.linear.seconds + self.attention.seconds + self.dispatch

    @property
    def bound(self) -> str:
        """What takes most of it."""
        parts = {
            "reading weights": self.linear.memory,
            "multiplying": self.linear.arithmetic,
            "reading the cache": self.attention.memory,
            "attending": self.attention.arithmetic,
            "dispatch": self.dispatch,
        }
        return max(parts, key=lambda name: parts[name])


def cost(model: Model, machine: Machine, rows: int, context: int, chunk: int = 1) -> Cost:
    """Of one step over `rows` sequences with `context` tokens in the cache, `chunk` new ones each."""
    tokens = rows * chunk
    rate = machine.attention if chunk == 1 else machine.chunk_attention
    return Cost(
        Part(
            model.weights * model.weight_bytes / machine.bandwidth,
            2 * model.weights * tokens / machine.linear,
        ),
        Part(
            rows * context * model.cached / machine.bandwidth,
            model.attention_operations(tokens, context + chunk // 2) / rate,
        ),
        model.nodes * machine.node,
    )


def predictions(machine: Machine) -> str:
    """Decode steps of each model, by rows and context."""
    lines = []
    for model in MODELS:
        for rows, context in ((1, 128), (8, 128), (32, 128), (32, 1024), (128, 1024)):
            one = cost(model, machine, rows, context)
            token = f"{1e3 * one.step / rows:.3f}"
            lines.append((model.name, f"{rows}", f"{context}", f"{1e3 * one.step:.2f}", token, one.bound))
    names = ("model", "rows", "context", "ms/step", "ms/token", "most of it")
    return table(f"Predicted decode steps on {machine.name}", names, [*lines])


def comparison(found: Profile) -> str:
    """SmolLM2's measured steps beside the predicted ones."""
    rows = list(_compared(found))
    return table("Predicted and measured", ("step", "predicted ms", "measured ms", "ratio"), [*rows])


def _compared(found: Profile) -> Iterator[tuple[str, str, str, str]]:
    for phase in found.phases:
        predicted = cost(SMOLLM2, CORES, phase.rows, phase.context, phase.chunk).step
        measured = phase.step_seconds - phase.outside_seconds
        what = f"{phase.name} {phase.rows} x {phase.chunk} behind {phase.context}"
        yield what, f"{1e3 * predicted:.1f}", f"{1e3 * measured:.1f}", f"{measured / predicted:.2f}"


def main(arguments: list[str]) -> None:
    parts = [predictions(machine) for machine in (CORES, GPU)]
    parts += [comparison(msgspec.json.decode(Path(file).read_bytes(), type=Profile)) for file in arguments]
    print("\n\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
