"""What /metrics shows: this server's own counters, and its engines' figures as asked for at each scrape.

With PROMETHEUS_MULTIPROC_DIR set the counters of all HTTP workers are added up; the engines' come from the
engines themselves, so that whichever worker is scraped tells the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from basert import messages
from basert.errors import BasertError
from basert.http.models import Model
from basert.messages import BucketStats, EngineState, Stats

STATS_PATIENCE = 1.0  # seconds a scrape waits for an engine between two steps
LABELS = ["model", "replica"]  # of what engines tell
Value = tuple[list[str], float]  # labels, figure

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

# field of Stats -> (metric, help); counters first, then gauges
_COUNTERS = {
    "requests_admitted": ("engine_requests_admitted", "Requests that got a slot."),
    "requests_finished": ("engine_requests_finished", "Requests that ran to their end."),
    "requests_cancelled": (
        "engine_requests_cancelled",
        "Requests that met a stop string or lost their client.",
    ),
    "requests_refused": (
        "engine_requests_refused",
        "Requests refused, the queue being full or they too long.",
    ),
    "requests_failed": ("engine_requests_failed", "Requests that failed in the engine."),
    "prompt_tokens": ("engine_prompt_tokens", "Prompt tokens, computed or cached."),
    "generated_tokens": ("engine_generated_tokens", "Tokens generated."),
    "cached_tokens": ("engine_cached_tokens", "Prompt tokens taken from the prefix cache."),
    "prefix_queries": ("engine_prefix_cache_queries", "Requests that looked into the prefix cache."),
    "prefix_hits": ("engine_prefix_cache_hits", "Requests that found a beginning of their prompt there."),
    "prefix_evictions": ("engine_prefix_cache_evictions", "Cached prompts overwritten to make room."),
    "decode_steps": ("engine_decode_steps", "Decode steps."),
    "prefill_steps": ("engine_prefill_steps", "Prefill steps."),
    "padded_tokens": (
        "engine_padded_tokens",
        "Tokens computed for nothing: padding, idle rows, wrong guesses.",
    ),
    "computed_tokens": ("engine_computed_tokens", "All tokens that went through the graph."),
    "drafted_tokens": ("engine_drafted_tokens", "Tokens guessed, to be verified in one step."),
    "accepted_tokens": ("engine_accepted_tokens", "Of which were right."),
    "constrained_tokens": ("engine_constrained_tokens", "Tokens drawn under a grammar."),
    "held_tokens": ("engine_held_tokens", "Rows run once more, their grammar being late."),
    "mask_seconds": ("engine_mask_seconds", "Time that steps waited for grammars."),
    "windows_heard": ("engine_windows_heard", "Windows of sound that went through the listener."),
    "windows_reused": ("engine_windows_reused", "Requests whose window a slot had heard already."),
    "listen_seconds": ("engine_listen_seconds", "Time in the graph, of which in the listener."),
    "grammars_compiled": ("engine_grammars_compiled", "Grammars compiled."),
    "grammars_reused": ("engine_grammars_reused", "Requests whose grammar was compiled already."),
    "step_seconds": ("engine_step_seconds", "Wall time inside the engine's steps."),
    "run_seconds": ("engine_run_seconds", "Of which inside the graph."),
}
_GAUGES = {
    "running": ("running_requests", "Requests in a slot."),
    "waiting": ("waiting_requests", "Requests waiting for a slot."),
    "slots": ("slots", "Sequences that can be decoded together."),
    "slots_used": ("slots_used", "Slots in use."),
    "kv_tokens": ("kv_tokens", "Tokens held in KV slots."),
    "retained_tokens": ("prefix_cache_tokens", "Tokens that free KV slots keep for later prompts."),
    "resident_bytes": ("engine_resident_bytes", "Memory of the engine process."),
}
_HISTOGRAMS = {
    "batch_size": ("engine_batch_size", "Rows of a decode step that worked."),
    "queue_seconds": ("engine_queue_seconds", "From arrival to a slot."),
    "input_tokens": ("engine_input_tokens", "Lengths of an encoder's inputs."),
}
# of an encoder's buckets: (metric, help, what it is)
_BUCKETS: tuple[tuple[str, str, Callable[[BucketStats], float]], ...] = (
    ("runs", "Runs of a bucket.", lambda bucket: bucket.runs),
    ("inputs", "Rows of a bucket that were inputs.", lambda bucket: bucket.inputs),
    ("input_tokens", "Tokens of a bucket that were an input's.", lambda bucket: bucket.input_tokens),
    (
        "padded_tokens",
        "Tokens of a bucket that were padding.",
        lambda bucket: bucket.runs * bucket.rows * bucket.tokens - bucket.input_tokens,
    ),
    ("run_seconds", "Time in a bucket's graph.", lambda bucket: bucket.run_seconds),
)


class Metrics:
    """Counters of one HTTP worker. Also Falcon middleware, counting every answer."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self._answers = Counter("basert_http_responses", "Answers begun.", labels, registry=registry)
        labels = ["model", "key", "outcome"]  # the key's name: as many as the key file has; "" without keys
        text = "Requests to engines by how they ended."
        self._requests = Counter("basert_requests", text, labels, registry=registry)
        labels = ["model", "key"]
        self._prompt = Counter("basert_prompt_tokens", "Prompt tokens.", labels, registry=registry)
        self._generated = Counter("basert_generated_tokens", "Generated tokens.", labels, registry=registry)
        labels = ["model"]
        text = "Requests to engines in the HTTP workers."
        self._open = Gauge(
            "basert_open_requests", text, labels, registry=registry, multiprocess_mode="livesum"
        )
        text = "From the request's arrival to each choice's first token."
        self._first = self._seconds("time_to_first_token", text, _LONG)
        self._between = self._seconds("inter_token", "Between two tokens of a choice.", _SHORT)
        self._whole = self._seconds("request", "A request to an engine in all.", _LONG)
        text = "Sound that was sent to be transcribed or translated."
        self._sound = Counter("basert_audio_seconds", text, labels, registry=registry)
        text = (
            "From the request's arrival to the end of its transcript: by audio_seconds, the real-time factor."
        )
        self._hearing = Counter("basert_audio_processing_seconds", text, labels, registry=registry)
        text = "Windows of sound that were heard."
        self._windows = Counter("basert_audio_windows", text, labels, registry=registry)
        text = "Answers to a window that were no good and drawn again, at a higher temperature."
        self._vain = Counter("basert_audio_fallbacks", text, labels, registry=registry)
        self.meter = lru_cache(maxsize=1024)(self._meter)
        self.speech = lru_cache(maxsize=1024)(self._speech)

    def _seconds(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"basert_{name}_seconds", text, ["model"], registry=self._registry, buckets=buckets)

    def _meter(self, model: str, key: str) -> Meter:
        return Meter(self, model, key)

    def _speech(self, model: str) -> SpeechMeter:
        return SpeechMeter(self, model)

    async def process_response(self, req: Request, resp: Response, _resource: object, _ok: bool) -> None:
        route = req.uri_template or "none"
        self._answers.labels(route, req.method, str(resp.status_code)).inc()

    async def exposition(self, models: Sequence[Model]) -> bytes:
        """All figures as Prometheus reads them."""
        engines = [Engine(model, number) for model in models for number in range(len(model.replicas))]
        stats = await asyncio.gather(*map(_stats, engines))
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        theirs = CollectorRegistry()
        theirs.register(_Engines(models, list(zip(engines, stats, strict=True))))
        own = await asyncio.to_thread(generate_latest, registry)
        return bytes(own + generate_latest(theirs))


class Meter:
    """The counters of one model's requests with one key, looked up once."""

    def __init__(self, metrics: Metrics, model: str, key: str) -> None:
        self._requests = metrics._requests
        self._labels = model, key
        self._open = metrics._open.labels(model)
        self._prompt = metrics._prompt.labels(model, key)
        self._generated = metrics._generated.labels(model, key)
        self._first = metrics._first.labels(model)
        self._between = metrics._between.labels(model)
        self._whole = metrics._whole.labels(model)

    def begin(self, prompt_tokens: int) -> None:
        self._open.inc()
        self._prompt.inc(prompt_tokens)

    def step(self, tokens: int, since: float, *, first: bool) -> float:
        """A choice got `tokens` more, `since` being its last step or, the first time, the request's arrival.

        Returns the time now, by time.perf_counter.
        """
        now = time.perf_counter()
        self._generated.inc(tokens)
        if first:
            self._first.observe(now - since)
        elif tokens:
            self._between.observe((now - since) / tokens)
        return now

    def end(self, outcome: str, started: float) -> None:
        """outcome: "ok", "cancelled", or an error's code."""
        self._open.dec()
        self._requests.labels(*self._labels, outcome).inc()
        self._whole.observe(time.perf_counter() - started)


class SpeechMeter:
    """What only a speech model has, looked up once."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._sound = metrics._sound.labels(model)
        self._hearing = metrics._hearing.labels(model)
        self._windows = metrics._windows.labels(model)
        self._vain = metrics._vain.labels(model)

    def heard_window(self) -> None:
        self._windows.inc()

    def tried_in_vain(self) -> None:
        self._vain.inc()

    def done(self, sound: float, started: float) -> None:
        """sound: seconds of a recording; started: its request's arrival, by time.perf_counter."""
        self._sound.inc(sound)
        self._hearing.inc(time.perf_counter() - started)


class Engine(NamedTuple):
    """One of a model's replicas."""

    model: Model
    replica: int

    @property
    def labels(self) -> list[str]:
        return [self.model.name, str(self.replica)]

    @property
    def state(self) -> EngineState:
        return self.model.replicas[self.replica]


async def _stats(engine: Engine) -> Stats | None:
    try:
        async with asyncio.timeout(STATS_PATIENCE):
            return await engine.model.engine.stats(engine.state.id)
    except (BasertError, TimeoutError):
        return None


class _Engines:
    """Engines' figures as metric families; an engine that did not answer has its state only."""

    def __init__(self, models: Sequence[Model], engines: Sequence[tuple[Engine, Stats | None]]) -> None:
        self._models = models
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        up = (([model.name], float(model.state == "ready")) for model in self._models)
        yield _family(GaugeMetricFamily, "engine_up", "Whether the model can answer.", up, ["model"])
        yield _family(GaugeMetricFamily, "replica_up", "Whether the engine can answer.", self._states())
        yield _family(CounterMetricFamily, "engine_restarts", "Times the engine died.", self._restarts())
        for field, (name, text) in _COUNTERS.items():
            yield _family(CounterMetricFamily, name, text, self._figures(field))
        for field, (name, text) in _GAUGES.items():
            yield _family(GaugeMetricFamily, name, text, self._figures(field))
        for field, (name, text) in _HISTOGRAMS.items():
            yield self._histogram(field, name, text)
        for name, text, value in _BUCKETS:
            yield self._buckets(name, text, value)

    def _states(self) -> Iterator[Value]:
        return ((one.labels, float(one.state.state == "ready")) for one, _ in self._engines)

    def _restarts(self) -> Iterator[Value]:
        return ((one.labels, one.state.restarts) for one, _ in self._engines)

    def _figures(self, field: str) -> Iterator[Value]:
        return ((one.labels, getattr(stats, field)) for one, stats in self._engines if stats is not None)

    def _histogram(self, field: str, name: str, text: str) -> Metric:
        family = HistogramMetricFamily(f"basert_{name}", text, labels=LABELS)
        for one, stats in self._engines:
            figures: messages.Histogram | None = getattr(stats, field, None)
            if figures is not None:
                bounds = [*map(str, figures.bounds), "+Inf"]
                buckets = list(zip(bounds, figures.counts, strict=True))
                family.add_metric(one.labels, buckets, figures.sum)
        return family

    def _buckets(self, name: str, text: str, value: Callable[[BucketStats], float]) -> Metric:
        labels = [*LABELS, "rows", "tokens"]
        family = CounterMetricFamily(f"basert_engine_bucket_{name}", text, labels=labels)
        for one, stats in self._engines:
            for bucket in stats.buckets if stats is not None else ():
                family.add_metric([*one.labels, str(bucket.rows), str(bucket.tokens)], value(bucket))
        return family


def _family(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    values: Iterable[Value],
    labels: Sequence[str] = LABELS,
) -> Metric:
    family = kind(f"basert_{name}", text, labels=labels)
    for labelled, value in values:
        family.add_metric(labelled, value)
    return family
