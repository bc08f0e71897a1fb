"""`basert bench`: flags to a plan, the plan to a server, the report to the terminal and to a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from basert.bench import environment, profiling
from basert.bench.tables import render
from basert.cli.measuring import measured
from basert.cli.options import connect, connection_options
from basert.cli.rooms import find_bundle
from basert.errors import ConfigError
from basert.manifest import read_manifest, write_json


class Counts(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers with commas between them; an empty text is none."""

    name = "N,N,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            counts = tuple(int(item) for item in value.split(",") if item.strip())
        except ValueError:
            counts = (0,)
        if any(count < 1 for count in counts):
            self.fail(f"{value!r} is no list of positive whole numbers such as 1,8,32.", param, ctx)
        return counts


@click.command("bench")
@connection_options
@click.option(
    "--batch",
    "batches",
    type=Counts(),
    default="1,8,16",
    show_default=True,
    help="Streams at once, in turn.",
)
@click.option(
    "--prompt-tokens", type=Counts(), default="128,512", show_default=True, help="Prompt lengths, in turn."
)
@click.option(
    "--output-tokens",
    type=click.IntRange(2),
    metavar="N",
    default=64,
    show_default=True,
    help="Of a decode run.",
)
@click.option(
    "--constrained/--no-constrained",
    default=True,
    show_default=True,
    help="Decode runs by a JSON schema, too, at the first prompt length.",
)
@click.option(
    "--concurrency",
    "concurrencies",
    type=Counts(),
    help="Clients, in turn.  [default: 1,8,32; of a speech model 1,8]",
)
@click.option(
    "--load-prompt-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=128,
    show_default=True,
    help="Under load.",
)
@click.option(
    "--load-output-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=64,
    show_default=True,
    help="Under load.",
)
@click.option(
    "--shared-prefix",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="Tokens that the prompts of a load run begin with alike.",
)
@click.option(
    "--requests", type=click.IntRange(1), metavar="N", default=2, show_default=True, help="Of each client."
)
@click.option(
    "--inputs",
    type=Counts(),
    default="1,8,32",
    show_default=True,
    help="Of an encoder: texts in a request, in turn.",
)
@click.option(
    "--texts",
    type=click.IntRange(1),
    metavar="N",
    default=500,
    show_default=True,
    help="Of an encoder: texts for each pair of --inputs and --concurrency.",
)
@click.option(
    "--sound",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Of a speech model: recordings of your own, each with its words in a .txt beside it.",
)
@click.option(
    "--sound-seconds",
    type=click.FloatRange(1),
    metavar="N",
    default=120,
    show_default=True,
    help="Of a speech model: length of the long recordings, which are made of single ones.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=".cache/peers",
    show_default=True,
    help="Where texts and recordings are kept.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    metavar="N",
    default=3,
    show_default=True,
    help="After a warm-up round.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    metavar="N",
    default=900,
    show_default=True,
    help="Stop measuring then.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it all here, too."
)
@click.option(
    "--profile",
    is_flag=True,
    help="Instead: where a step's time goes, operator by operator, at each --batch [1,8,32].",
)
@click.option("--slots", type=click.IntRange(1), metavar="N", help="Slots of the server started here.")
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="Engine threads of the server started here."
)
def command(
    model: str | None,
    url: str | None,
    api_key: str | None,
    json_file: Path | None,
    slots: int | None,
    threads: int | None,
    profile: bool,
    **flags: Any,
) -> None:
    """Measure MODEL: a bundle's name or path, or a model of the server at --url.

    Three tables: prefill and decode by batch and prompt length, and load by number of clients, each client
    sending its next request when the last was answered. Everything goes over HTTP, streamed, greedy, with
    prompts that are all different. An empty list ("") leaves its tables out.

    An encoder has two tables of its own: texts per second and latency by --inputs and --concurrency, and what
    each shape of its graph was used for.

    A speech model has two as well: seconds of sound per second, the time to the first segment and word errors
    by kind of recording and --concurrency; and what its engine did meanwhile.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json: the folder {json_file.absolute().parent} does not exist; make it first.")
    if profile:
        _profile(model, url, json_file, threads, flags)
        return
    if flags["shared_prefix"] >= flags["load_prompt_tokens"]:
        raise ConfigError("--shared-prefix must leave tokens to differ in; raise --load-prompt-tokens.")
    serve = [*_flag("--continuous-batching", slots), *_flag("--threads", threads)]
    with connect(model, url, api_key, serve) as target:
        report = asyncio.run(measured(target, flags))
    click.echo(render(report))
    if json_file is not None:
        write_json(json_file, report)


def _profile(
    model: str | None, url: str | None, json_file: Path | None, threads: int | None, flags: dict[str, Any]
) -> None:
    """In an engine of its own, without a server; with the first of the prompt lengths as context."""
    if url is not None or model is None:
        raise ConfigError("--profile looks into an engine; name a bundle of this machine, and no --url.")
    bundle = find_bundle(model)
    source = click.get_current_context().get_parameter_source("batches")
    rows = profiling.ROWS if source is ParameterSource.DEFAULT else flags["batches"]
    if not rows or not flags["prompt_tokens"]:
        raise ConfigError("--profile needs a --batch and a length of --prompt-tokens.")
    manifest = read_manifest(bundle)
    if manifest.family != "decoder":
        raise ConfigError(
            f"--profile steps a decoder that writes texts, and {manifest.name} is of the family"
            f" {manifest.family}; measure it without."
        )
    found = profiling.profile(bundle, rows, flags["prompt_tokens"][0], threads)
    click.echo(profiling.render(found, f"{manifest.name}, {manifest.variant}, {environment.machine().cpu}"))
    if json_file is not None:
        write_json(json_file, found)


def _flag(name: str, value: int | None) -> list[str]:
    return [] if value is None else [name, str(value)]
