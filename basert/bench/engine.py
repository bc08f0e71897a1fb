"""The engine's own counters, read from /metrics. Knows their names, and no other metric."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from basert.client import Client, RequestFailed

NAMES = ("basert_engine_step_seconds_total", "basert_engine_run_seconds_total", "basert_slots")
ENGINE, BUCKET, TOTAL = "basert_engine_", "basert_engine_bucket_", "_total"


async def _samples(client: Client, model: str) -> list[Sample]:
    """Those of the model; none where the server has no such page."""
    try:
        text = (await client.get("/metrics")).decode()
        return [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("model") == model
        ]
    except (RequestFailed, ValueError):
        return []


@dataclass(frozen=True)
class Counters:
    """Wall seconds inside the engine's step() and, of these, in the graph, since it started; its slots."""

    step_seconds: float
    run_seconds: float
    slots: float

    @classmethod
    async def read(cls, client: Client, model: str) -> Counters | None:
        """None where the server has no such counters."""
        samples = await _samples(client, model)
        found = {sample.name: sample.value for sample in samples if sample.name in NAMES}
        return cls(*(found[name] for name in NAMES)) if len(found) == len(NAMES) else None

    def python_share(self, before: Counters) -> float | None:
        """What of the steps since `before` was spent outside the graph; None when there was no step."""
        step = self.step_seconds - before.step_seconds
        return 1 - (self.run_seconds - before.run_seconds) / step if step > 0 else None


@dataclass(frozen=True)
class Bucket:
    """One shape of an encoder, since its engine started or between two moments."""

    rows: int
    tokens: int
    runs: float = 0.0
    inputs: float = 0.0  # rows that were no padding
    input_tokens: float = 0.0
    run_seconds: float = 0.0

    @classmethod
    async def read(cls, client: Client, model: str) -> list[Bucket]:
        """By rows and tokens; none where the server has no such counters."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for sample in await _samples(client, model):
            name = sample.name.removeprefix(BUCKET).removesuffix(TOTAL)
            if sample.name.startswith(BUCKET) and name in cls.__dataclass_fields__:
                shape = int(sample.labels["rows"]), int(sample.labels["tokens"])
                found.setdefault(shape, {})[name] = sample.value
        return [cls(*shape, **values) for shape, values in sorted(found.items())]

    @staticmethod
    def since(before: Sequence[Bucket], after: Sequence[Bucket]) -> list[Bucket]:
        """What came to each between two readings."""
        earlier = {(one.rows, one.tokens): one for one in before}
        return [one.less(earlier.get((one.rows, one.tokens))) for one in after]

    def less(self, other: Bucket | None) -> Bucket:
        if other is None:
            return self
        return Bucket(
            self.rows,
            self.tokens,
            self.runs - other.runs,
            self.inputs - other.inputs,
            self.input_tokens - other.input_tokens,
            self.run_seconds - other.run_seconds,
        )


@dataclass(frozen=True)
class Hearing:
    """What a speech model's engine did since it started, or between two moments; seconds of wall time."""

    windows_heard: float
    windows_reused: float  # requests whose window a row had heard already
    listen_seconds: float  # of those in the graphs
    run_seconds: float
    step_seconds: float
    decode_steps: float
    prefill_steps: float
    batch_size_sum: float  # rows of all decode steps

    @classmethod
    async def read(cls, client: Client, model: str) -> Hearing | None:
        """None where the server has no such counters."""
        found = {
            sample.name.removeprefix(ENGINE).removesuffix(TOTAL): sample.value
            for sample in await _samples(client, model)
        }
        names = cls.__dataclass_fields__
        return cls(**{name: found[name] for name in names}) if names.keys() <= found.keys() else None

    def less(self, other: Hearing) -> Hearing:
        return Hearing(*map(operator.sub, astuple(self), astuple(other)))

    def plus(self, other: Hearing) -> Hearing:
        return Hearing(*map(operator.add, astuple(self), astuple(other)))
