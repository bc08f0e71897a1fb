"""The discipline of encoders: embeddings of real texts, and what is noted of them. Knows no server.

Every speed has beside it how close the vectors were to the checkpoint's own in float32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from basert.bench.embedding import check, cosines, run
from basert.bench.engine import Bucket
from basert.bench.load import Outcome, crowd
from basert.bench.peers.processes import MemoryPeak
from basert.bench.peers.trial import Discipline, Subject, Trial, latency
from basert.bench.sentences import Sentences
from basert.client import Client, RequestFailed

SHORT = 200  # texts, of the shortest
INSIDE = "/inside"  # of fronts/embeddings.py


@dataclass(frozen=True)
class Encoder(Subject):
    sentences: Sentences
    reference: bytes | None  # float32 [sentences, width]: what the checkpoint itself makes of them

    def closeness(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Of the answers to the first sentences, in order; nothing without a reference."""
        if self.reference is None:
            return {}
        found = cosines(outcomes, self.reference)
        return {"cosine_min": min(found), "cosine_mean": statistics.fmean(found)}

    async def inside(self, texts: Sequence[str], inputs: int) -> dict[str, list[float]] | None:
        """Seconds of calls of `inputs` texts in the server's own process; None of a server without such."""
        try:
            found: dict[str, list[float]] = await self.client.post(
                INSIDE, {"input": [*texts], "inputs": inputs}
            )
        except RequestFailed as error:
            if error.http_status == 404:
                return None
            raise
        return found


@dataclass(frozen=True)
class Embed(Trial[Encoder]):
    """A closed loop over all texts: `streams` clients, requests of `inputs` texts."""

    streams: int
    inputs: int

    async def measure(self, subject: Encoder) -> dict[str, float]:
        bodies = subject.sentences.bodies(subject.model, self.inputs)
        with MemoryPeak(subject.pid) as peak:
            outcomes, seconds = await crowd(subject.client, bodies, self.streams, run)
        check(outcomes, bodies)
        return {
            "texts_per_second": sum(len(one.vectors) for one in outcomes) / seconds,
            **latency(outcomes),
            **subject.closeness(outcomes),
            "memory_mib": peak.mib,
        }


@dataclass(frozen=True)
class Alone(Trial[Encoder]):
    """One short text at a time; beside it what the runtime itself took, where that is known."""

    async def measure(self, subject: Encoder) -> dict[str, float]:
        short = subject.sentences.shortest(SHORT)
        bodies = short.bodies(subject.model, 1)
        before = await Bucket.read(subject.client, subject.model)
        outcomes, _ = await crowd(subject.client, bodies, 1, run)
        after = await Bucket.read(subject.client, subject.model)
        check(outcomes, bodies)
        used = [one for one in Bucket.since(before, after) if one.runs]
        values = latency(outcomes)
        if used:
            values["session_ms"] = 1e3 * sum(one.run_seconds for one in used) / sum(one.runs for one in used)
        return values | await _inside(subject, short)


@dataclass(frozen=True)
class Inside(Trial[Encoder]):
    """All texts in one call, in the server's own process."""

    async def measure(self, subject: Encoder) -> dict[str, float]:
        texts = subject.sentences.texts
        found = await subject.inside(texts, len(texts))
        return {} if found is None else {"texts_per_second": len(texts) / sum(found["seconds"])}


@dataclass(frozen=True)
class Encoding(Discipline[Encoder]):
    sentences: Sentences
    reference: bytes | None

    method = (
        "One client, the same for all: /v1/embeddings, vectors in base64, connections kept, the texts in"
        " no order of length.",
        "Cosines are between a server's vectors and those of Sentence Transformers in float32.",
    )
    keep_alive = True

    def subject(self, client: Client, model: str, pid: int) -> Encoder:
        return Encoder(client, model, pid, self.sentences, self.reference)

    async def first_answer(self, subject: Encoder) -> float:
        await _ask(subject, subject.sentences.bodies(subject.model, 1)[:1], 1)
        return time.perf_counter()

    async def warm_up(self, subject: Encoder, streams: int) -> None:
        """All lengths, alone and many together."""
        await _ask(subject, subject.sentences.bodies(subject.model, 1)[:64], 1)
        await _ask(subject, subject.sentences.bodies(subject.model, 32)[:16], streams)


async def _ask(subject: Encoder, bodies: list[dict[str, Any]], streams: int) -> None:
    outcomes, _ = await crowd(subject.client, bodies, streams, run)
    check(outcomes, bodies)


async def _inside(subject: Encoder, short: Sentences) -> dict[str, float]:
    found = await subject.inside(short.texts, 1)
    if found is None:
        return {}
    values = {"inside_ms": 1e3 * statistics.median(found["seconds"])}
    session = 1e3 * statistics.median(found["session_seconds"])
    return values | ({"session_ms": session} if session else {})


def _embeds() -> Iterator[Embed]:
    for inputs in (1, 32):
        for streams in (1, 16):
            clients = "one client" if streams == 1 else f"{streams} clients"
            texts = "one text" if inputs == 1 else f"{inputs} texts"
            about = f"{clients}, requests of {texts}"
            yield Embed(f"{streams}x{inputs}", about, "texts_per_second", streams, inputs)


TRIALS: dict[str, Trial[Encoder]] = {
    trial.name: trial
    for trial in (
        *_embeds(),
        Alone("alone", f"one client, one of the {SHORT} shortest texts at a time", "latency_ms"),
        Inside("inside", "all texts in one call, in the process, without HTTP", "texts_per_second"),
    )
}
