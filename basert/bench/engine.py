"""The engine's own counters, read from /metrics. Knows their names, and no other metric."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from basert.client import Client, RequestFailed

NAMES = ("basert_engine_step_seconds_total", "basert_engine_run_seconds_total", "basert_slots")


@dataclass(frozen=True)
class Counters:
    """Wall seconds inside the engine's step() and, of these, in the graph, since it started; its slots."""

    step_seconds: float
    run_seconds: float
    slots: float

    @classmethod
    async def read(cls, client: Client, model: str) -> Counters | None:
        """None where the server has no such counters."""
        try:
            text = (await client.get("/metrics")).decode()
        except RequestFailed:
            return None
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in NAMES and sample.labels.get("model") == model
        }
        return cls(*(found[name] for name in NAMES)) if len(found) == len(NAMES) else None

    def python_share(self, before: Counters) -> float | None:
        """What of the steps since `before` was spent outside the graph; None when there was no step."""
        step = self.step_seconds - before.step_seconds
        return 1 - (self.run_seconds - before.run_seconds) / step if step > 0 else None
