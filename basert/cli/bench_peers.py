"""`basert bench-peers`: basert beside other servers. Flags to a plan; what is left is two reports."""

from __future__ import annotations

import asyncio
import datetime
import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from basert import progress
from basert.bench import environment, recordings, sentences
from basert.bench.peers import cache as kept
from basert.bench.peers import reference
from basert.bench.peers.basert_itself import Basert
from basert.bench.peers.encoding import SHORT, Encoding
from basert.bench.peers.generating import Generating
from basert.bench.peers.markdown import render
from basert.bench.peers.peer import Model, Peer, Setup
from basert.bench.peers.results import Comparison, Contestant
from basert.bench.peers.rounds import START, Plan, Rounds
from basert.bench.peers.running import Entrant
from basert.bench.peers.table import PEERS, TRIALS, peers_of
from basert.bench.peers.texts import Texts
from basert.bench.peers.transcribing import Transcribing
from basert.bench.peers.trial import Discipline, Trial
from basert.bench.prompts import Prompts
from basert.bench.sentences import Sentences
from basert.cli.local import exit_on_signals
from basert.cli.rooms import export_extra, find_bundle
from basert.errors import BasertError, ConfigError
from basert.manifest import digest, read_manifest, write_json
from basert.text import tokenizer

STREAMS, CONTEXT = 32, 1536  # what the workloads need at once, and of one sequence
ABOUT_START = "from starting the process to its first sign of readiness and to its first answer"


class Names(click.ParamType[tuple[str, ...]]):
    """Names out of a list, with commas between them."""

    name = "NAME,NAME,…"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in names:
            if name not in self._known:
                self.fail(f"{name!r} is none of {', '.join(self._known)}.", param, ctx)
        return names


@click.command("bench-peers")
@click.argument("model", default="smollm2")
@click.option(
    "--peers",
    type=Names([*PEERS]),
    help="Beside basert.  [default: all that serve such a model]",
)
@click.option(
    "--workloads",
    type=Names([START, *(name for trials in TRIALS.values() for name in trials)]),
    help="Which to measure.  [default: all that are for such a model]",
)
@click.option(
    "--repetitions", type=click.IntRange(1), metavar="N", default=3, show_default=True, help="Rounds."
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    metavar="N",
    default=3600,
    show_default=True,
    help="Stop measuring then.",
)
@click.option(
    "--texts",
    type=click.IntRange(SHORT),
    metavar="N",
    default=sentences.COUNT,
    show_default=True,
    help="Of an encoder: how many texts.",
)
@click.option(
    "--sound",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Of a speech model: recordings of your own, each with its words in a .txt beside it.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of every server; else one per CPU.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=".cache/peers",
    show_default=True,
    help="Where peers are installed.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="bench-results",
    show_default=True,
    help="Where the reports go.",
)
@click.option("--install-only", is_flag=True, help="Install the peers, measure nothing.")
def command(
    model: str,
    peers: tuple[str, ...] | None,
    workloads: tuple[str, ...] | None,
    repetitions: int,
    seconds: float,
    texts: int,
    sound: Path | None,
    threads: int | None,
    cache: Path,
    output: Path,
    install_only: bool,
) -> None:
    """Measure the bundle MODEL beside other servers on this machine, all through one client.

    Each peer is installed once into the cache. One that does not install or start is named in the report,
    with the reason, and left out.
    """
    exit_on_signals()
    served = _model(find_bundle(model), cache)
    trials = _trials(served, workloads)
    started = workloads is None or START in workloads
    report = _report(served, trials, started, repetitions, threads or len(os.sched_getaffinity(0)))
    entrants = [*_entrants([Basert(), *_peers(served, peers)], served, cache, report)]
    if not install_only:
        discipline = _discipline(served, texts, sound, cache, report)
        _measure(Plan(trials, repetitions, seconds), entrants, discipline, report, output)
    for name, reason in report.left_out.items():
        click.echo(f"left out: {name}: {reason}", err=True)


def _peers(model: Model, names: Sequence[str] | None) -> list[Peer]:
    """All that serve its family, or those of them that are named. Raises ConfigError for others."""
    known = peers_of(model.family)
    _refuse("--peers", names or (), known, model)
    return [PEERS[name]() for name in (known if names is None else names)]


def _trials(model: Model, names: Sequence[str] | None) -> list[Trial[Any]]:
    known = TRIALS[model.family]
    _refuse("--workloads", names or (), (START, *known), model)
    return [known[name] for name in (known if names is None else names) if name != START]


def _refuse(flag: str, names: Sequence[str], known: Sequence[str], model: Model) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{flag}: {name} is not for {model.name}, which is of the family {model.family};"
                f" say some of {', '.join(known)}."
            )


def _model(bundle: Path, cache: Path) -> Model:
    """What the bundle was exported from is fetched again if need be, and a checkpoint is made of it."""
    manifest = read_manifest(bundle)
    source = manifest.provenance.source
    name = hashlib.sha256(f"{source.uri} {source.sha256}".encode()).hexdigest()[:16]
    folder = cache.absolute() / "checkpoints" / name

    @functools.cache
    def fetch() -> Path:
        with export_extra():
            from export import sources

            return sources.fetch(source.uri).path

    @functools.cache
    def checkpoint() -> Path:
        with export_extra():
            from export import prepare

            path = fetch()
            kept.keep(folder, "1", f"unpacking {source.uri}", lambda: prepare.prepare(path, folder))
        return folder

    return Model(bundle.name, bundle, name, manifest.family, fetch, checkpoint)


def _report(
    model: Model, trials: Sequence[Trial[Any]], started: bool, repetitions: int, threads: int
) -> Comparison:
    manifest = read_manifest(model.bundle)
    start = {START: ABOUT_START} if started else {}
    return Comparison(
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=["basert", *sys.argv[1:]],
        machine=environment.machine(),
        model=model.name,
        source=manifest.provenance.source.uri,
        bundle=f"{manifest.variant} {digest(model.bundle)}",
        settings={"threads": threads, "streams": STREAMS, "context": CONTEXT, "repetitions": repetitions},
        workloads={**start, **{trial.name: trial.about for trial in trials}},
        headlines={**dict.fromkeys(start, "answered_s"), **{trial.name: trial.headline for trial in trials}},
    )


def _entrants(peers: Sequence[Peer], model: Model, cache: Path, report: Comparison) -> Iterator[Entrant]:
    """Those that can be installed; the report learns of all."""
    for peer in peers:
        try:
            yield _entrant(peer, model, cache, report)
        except (BasertError, OSError, ValueError) as error:
            progress.note(f"{peer.name} is left out: {error}")
            report.left_out[peer.name] = str(error)


def _entrant(peer: Peer, model: Model, cache: Path, report: Comparison) -> Entrant:
    room, made = kept.install(peer, cache)
    converted = kept.convert(peer, room, model)
    setup = Setup(room, converted, model, int(report.settings["threads"]), STREAMS, CONTEXT)
    environ = dict(peer.environment(setup))
    command = peer.command(setup, 8000)
    notes = [*peer.notes]
    report.contestants.append(
        Contestant(peer.name, peer.versions(room), command, environ, notes, made.seconds)
    )
    return Entrant(peer, setup)


def _discipline(
    model: Model, texts: int, sound: Path | None, cache: Path, report: Comparison
) -> Discipline[Any]:
    if model.family == "encoder":
        measured = sentences.load(cache, texts)
        report.method = [*Encoding.method, measured.about]
        return Encoding(measured, _reference(model, measured, cache, report))
    if model.family == "speech":
        heard = asyncio.run(recordings.load(cache, sound))
        report.method = [*Transcribing.method, heard.about]
        return Transcribing(heard)
    text = tokenizer.load(model.bundle)
    report.method = [*Generating.method]
    prompts = Prompts.from_encoder(functools.partial(text.encode, add_special=False))
    return Generating(prompts, Texts.of(text))


def _reference(model: Model, texts: Sentences, cache: Path, report: Comparison) -> bytes | None:
    """What the checkpoint itself makes of the texts; the report goes on without, if need be."""
    try:
        return reference.vectors(model, texts, cache)
    except (BasertError, OSError) as error:
        progress.note(f"no vector is compared with the checkpoint's own: {error}")
        report.skipped.append(f"cosines: {error}")
        return None


def _measure(
    plan: Plan, entrants: Sequence[Entrant], discipline: Discipline[Any], report: Comparison, output: Path
) -> None:
    """Whatever ends it, what was measured by then is written down."""
    try:
        with progress.task("measuring", unit="steps") as show:
            rounds = Rounds(plan, discipline, report, show)
            asyncio.run(rounds.run(entrants))
    finally:
        _write(report, output)


def _write(report: Comparison, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"peers-{report.started[:19].replace(':', '')}"
    write_json(stem.with_suffix(".json"), report)
    stem.with_suffix(".md").write_text(render(report))
    click.echo(f"wrote {stem}.md and {stem.name}.json")
