"""What `basert bench` measures of a server: which discipline its model is of, and that one's cells."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from typing import Any

from basert import progress
from basert.bench import encoding, environment, hearing, recordings, sentences
from basert.bench.engine import Bucket, Counters
from basert.bench.load import Outcome, Workload
from basert.bench.plan import Plan, cells_of, measure
from basert.bench.prompts import Prompts
from basert.bench.results import Report, Subject
from basert.bench.transcribing import Asked, request, run
from basert.cli.options import Target
from basert.client import Client, RequestFailed
from basert.errors import ConfigError
from basert.manifest import digest, read_manifest


async def measured(target: Target, flags: dict[str, Any]) -> Report:
    """flags: those of `basert bench`. Raises RequestFailed, ConfigError."""
    report = Report(
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=sys.argv[1:],
        machine=environment.machine(),
        subject=_subject(target),
        repetitions=flags["repetitions"],
    )
    async with Client(target.url, target.api_key) as client:
        match await _task(client, target):
            case "embed":
                await _measure_encoder(client, target, report, flags)
            case "transcribe":
                await _measure_speech(client, target, report, flags)
            case _:
                await _measure_decoder(client, target, report, flags)
    return report


def _subject(target: Target) -> Subject:
    build = target.card.system_fingerprint
    if target.bundle is None:
        return Subject(target.model, target.url, build)
    manifest = read_manifest(target.bundle)
    source = manifest.provenance.source.uri
    return Subject(target.model, target.url, build, manifest.variant, digest(target.bundle), source)


async def _task(client: Client, target: Target) -> str:
    """Another server's model does not say; it is asked. Raises ConfigError for what can only rank or sort."""
    if target.card.task in ("rerank", "classify"):
        raise ConfigError(f"{target.model} gives scores: name a model that writes, embeds or hears.")
    if target.card.task is not None:
        return target.card.task
    try:
        embeds = bool((await client.embed(sentences.request(target.model, ["Hello."]))).data)
    except RequestFailed:
        embeds = False
    return "embed" if embeds else "generate"


async def _measure_decoder(client: Client, target: Target, report: Report, flags: dict[str, Any]) -> None:
    counters = await Counters.read(client, target.model)
    slots = int(counters.slots) if counters else sys.maxsize
    names = [field.name for field in dataclasses.fields(Plan)]
    asked = {name: flags[name] for name in names if name in flags}
    asked["concurrencies"] = _clients(flags, (1, 8, 32))
    plan = Plan(slots=slots, max_context=target.card.max_model_len or sys.maxsize, **asked)
    workload = Workload(client, target.model, await Prompts.from_server(client, target.model))
    with progress.task("measuring", unit="runs") as show:
        await measure(cells_of(plan, report.skipped), workload, flags["seconds"], report, show)


async def _measure_encoder(client: Client, target: Target, report: Report, flags: dict[str, Any]) -> None:
    texts = sentences.load(flags["cache"], flags["texts"])
    report.texts = texts.about
    clients = _clients(flags, (1, 8, 32))
    cells = encoding.cells_of(flags["inputs"], clients, flags["texts"], report.skipped)
    before = await Bucket.read(client, target.model)
    with progress.task("measuring", unit="runs") as show:
        await measure(cells, encoding.Texts(client, target.model, texts), flags["seconds"], report, show)
    report.buckets = encoding.costs(before, await Bucket.read(client, target.model))


async def _measure_speech(client: Client, target: Target, report: Report, flags: dict[str, Any]) -> None:
    sounds = hearing.Sounds(client, target.model, await recordings.load(flags["cache"], flags["sound"]))
    report.recordings = sounds.recordings.about
    cells = hearing.cells_of(
        await _answered(sounds, report.skipped),
        _clients(flags, (1, 8)),
        flags["requests"],
        len(sounds.recordings.pieces),
        flags["sound_seconds"],
    )
    with progress.task("measuring", unit="runs") as show:
        await measure(cells, sounds, flags["seconds"], report, show)


async def _answered(sounds: hearing.Sounds, skipped: list[str]) -> list[Asked]:
    """What this model can be asked for; a line for what it cannot."""
    [recording], found = sounds.recordings.drawn("what it can", 1), list[Asked]()
    asked: Asked
    for asked in ("text", "segments", "words"):
        outcome = Outcome(0.0)
        await run(sounds.client, request(sounds.model, recording, asked), outcome)
        if outcome.error is None:
            found.append(asked)
        elif asked == "text":
            raise RequestFailed(outcome.error)
        else:
            skipped.append(f"{asked}: {outcome.error}")
    return found


def _clients(flags: dict[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    given: tuple[int, ...] | None = flags["concurrencies"]
    return default if given is None else given
