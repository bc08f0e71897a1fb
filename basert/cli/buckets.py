"""`basert buckets suggest`: buckets for an encoder's next export, from what a server of it saw."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import click

from basert import buckets, store
from basert.buckets import Seen
from basert.cli.completion import bundle_names
from basert.cli.tables import table
from basert.client import Client
from basert.errors import BundleError, ConfigError
from basert.manifest import Encoder, read_manifest

METRIC = "basert_engine_input_tokens_bucket"


@click.group("buckets")
def command() -> None:
    """The shapes (rows x tokens) that an encoder runs with."""


@command.command("suggest")
@click.argument("bundle", shell_complete=bundle_names)
@click.option(
    "--url", metavar="URL", envvar="BASERT_URL", show_envvar=True, help="The server whose /metrics to read."
)
@click.option("--api-key", envvar="BASERT_API_KEY", show_envvar=True, help="Key for that server.")
@click.option("--model", help="What that server calls the model.  [default: the bundle's name]")
@click.option(
    "--histogram",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Lengths from a file instead: /metrics as it was saved, or JSON {"length": count}.',
)
@click.option(
    "--lengths", type=click.IntRange(1, 32), default=12, show_default=True, help="At most so many lengths."
)
def suggest(
    bundle: str,
    url: str | None,
    api_key: str | None,
    model: str | None,
    histogram: Path | None,
    lengths: int,
) -> None:
    """Print --buckets for the next export of BUNDLE that fit the inputs which a server of it saw.

    \b
    basert buckets suggest minilm --url http://127.0.0.1:8080
    basert export minilm --buckets "$(basert buckets suggest minilm --url http://127.0.0.1:8080)"
    """
    manifest = read_manifest(store.find(bundle))
    if manifest.encoder is None:
        raise BundleError(f"{manifest.name} is no encoder; only these have buckets of this kind.")
    if (url is None) == (histogram is None):
        raise click.UsageError("say where lengths come from: --url of a server, or --histogram of a file.")
    text = histogram.read_text() if histogram else asyncio.run(_metrics(str(url), api_key))
    seen = read_lengths(text, model or manifest.name)
    ladder = buckets.suggest(seen, lengths, manifest.encoder.max_tokens)
    now = sorted({tokens for graph in manifest.graphs for _, tokens in graph.shapes})
    click.echo(_told(seen, now, ladder, manifest.encoder), err=True)
    click.echo(",".join(f"{rows}x{tokens}" for rows, tokens in buckets.shapes(ladder)))


def read_lengths(text: str, model: str) -> Seen:
    """Of a model's metric, or of a JSON object. Raises ConfigError when there are none."""
    counts = _from_json(text) if text.lstrip().startswith("{") else _from_metrics(text, model)
    if not sum(counts.values()):
        raise ConfigError(f"There are no lengths of {model!r}'s inputs yet; let it serve for a while.")
    bounds = sorted(counts)
    return Seen(bounds, [counts[bound] for bound in bounds])


def _from_json(text: str) -> dict[int, float]:
    try:
        found: dict[str, Any] = json.loads(text)
        return {int(length): float(count) for length, count in found.items()}
    except (ValueError, TypeError):
        raise ConfigError('The histogram is no JSON of the form {"length": count}.') from None


def _from_metrics(text: str, model: str) -> dict[int, float]:
    """Prometheus' buckets are cumulative, and the last one has no bound: nothing is longer than a model
    takes."""
    cumulative: dict[int, float] = {}
    for labels, value in re.findall(rf"^{METRIC}{{([^}}]*)}} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told.get("model") == model and told.get("le", "+Inf") != "+Inf":
            bound = int(float(told["le"]))
            cumulative[bound] = cumulative.get(bound, 0.0) + float(value)  # over all replicas
    counts, below = {}, 0.0
    for bound in sorted(cumulative):
        counts[bound], below = cumulative[bound] - below, cumulative[bound]
    return counts


async def _metrics(url: str, api_key: str | None) -> str:
    async with Client(url, api_key) as client:
        return (await client.get("/metrics")).decode()


def _told(seen: Seen, now: list[int], ladder: list[int], encoder: Encoder) -> str:
    rows = [
        (name, f"{buckets.padding(seen, lengths):.1%}", ", ".join(map(str, lengths)))
        for name, lengths in (("the bundle's", now), ("suggested", ladder))
    ]
    inputs = f"{sum(seen.counts):.0f} inputs were seen; this model takes {encoder.max_tokens} tokens of each."
    return f"{inputs}\n{table(('LENGTHS', 'PADDING', 'TOKENS'), rows)}"
