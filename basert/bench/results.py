"""What a benchmark found, as it goes into its JSON file. Knows numbers, not how they were come by."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """One quantity over several repetitions."""

    median: float
    lowest: float
    highest: float
    samples: list[float]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        return cls(statistics.median(samples), min(samples), max(samples), list(samples))


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds; None where nothing was observed."""

    p50: float | None
    p90: float | None
    p99: float | None
    count: int

    @classmethod
    def of_seconds(cls, values: Sequence[float]) -> Percentiles:
        ordered = sorted(values)
        p50, p90, p99 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99))
        return cls(p50, p90, p99, len(ordered))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Linear between neighbours, as numpy's default; seconds in, milliseconds out; None of nothing."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return 1e3 * (ordered[low] + (ordered[high] - ordered[low]) * (place - low))


class Prefill(msgspec.Struct, frozen=True):
    """`batch` prompts at once, one token each: prompt tokens per second until the last has answered."""

    batch: int
    prompt_tokens: int
    tokens_per_second: Spread


class Decode(msgspec.Struct, frozen=True):
    """`batch` streams at once: output tokens per second while all of them run."""

    batch: int
    prompt_tokens: int
    output_tokens: int
    tokens_per_second: Spread
    python_share: Spread | None  # of the engine's step time outside the graph; None without /metrics
    constrained: bool = False  # every token had to fit a JSON schema


class Level(msgspec.Struct, frozen=True):
    """`concurrency` clients, each sending its next request when the last was answered."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    requests: int  # answered, over all repetitions
    errors: dict[str, int]  # message -> how often
    requests_per_second: Spread
    output_tokens_per_second: Spread
    first_token: Percentiles
    inter_token: Percentiles  # between neighbouring chunks of a stream
    whole_request: Percentiles
    shared_prefix: int = 0  # first tokens of the prompts that are alike within a repetition


class Embeddings(msgspec.Struct, frozen=True):
    """`concurrency` clients, each sending its next `inputs` texts when the last were answered."""

    inputs: int
    concurrency: int
    requests: int  # answered, over all repetitions
    errors: dict[str, int]  # message -> how often
    texts_per_second: Spread
    whole_request: Percentiles


class BucketCost(msgspec.Struct, frozen=True):
    """What one shape of an encoder's graph did for all that was measured, the warm-up round included."""

    rows: int
    tokens: int
    runs: int
    inputs: int  # rows that were no padding
    input_tokens: int  # tokens that were no padding
    run_seconds: float


class Listening(msgspec.Struct, frozen=True):
    """What a speech model's engine did for a line of Transcripts, the warm-up excluded; wall seconds."""

    windows: int  # of sound, that went through the listener
    windows_reused: int  # requests whose window a row had heard already
    listen_seconds: float  # in the listener
    steps: int  # of the decoder
    rows: float  # of a decode step, in the mean
    decode_seconds: float  # in the decoder
    outside_seconds: float  # of the engine's steps, outside both graphs


class Transcripts(msgspec.Struct, frozen=True):
    """`concurrency` clients, each sending its next recording when the last was answered."""

    seconds: float  # of a recording that is made of several; 0: single ones
    asked: str  # "text" | "segments" | "words": what times
    concurrency: int
    requests: int  # answered, over all repetitions
    errors: dict[str, int]  # message -> how often
    sound_per_second: Spread  # seconds of recordings; its inverse is the real-time factor
    first_segment: Percentiles
    whole_request: Percentiles
    word_error_rate: float  # 0 to 1 (and beyond)
    engine: Listening | None  # None without /metrics


class Machine(msgspec.Struct, frozen=True):
    """The machine that measured; the server's, when that runs here too."""

    cpu: str
    cpus: int
    features: list[str]  # those that matter for int8: avx2, avx512_vnni, amx_int8, …
    memory_bytes: int
    kernel: str
    python: str
    packages: dict[str, str]


class Subject(msgspec.Struct, frozen=True):
    """The model: what its server says of it and, where that was our own, what its bundle says."""

    model: str
    url: str
    build: str | None  # system_fingerprint
    variant: str | None = None
    digest: str | None = None  # of the bundle's manifest
    source: str | None = None


class Report(msgspec.Struct):
    """Filled in as the benchmark goes; `complete` only at its end."""

    started: str
    command: list[str]
    machine: Machine
    subject: Subject
    repetitions: int
    prefill: list[Prefill] = []
    decode: list[Decode] = []
    load: list[Level] = []
    embeddings: list[Embeddings] = []
    buckets: list[BucketCost] = []
    texts: str = ""  # which were embedded
    transcripts: list[Transcripts] = []
    recordings: str = ""  # which were transcribed
    skipped: list[str] = []
    complete: bool = False
