"""What `chat`, `complete` and `bench` share on the command line: which model, which server, how to sample."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from basert.cli.completion import bundle_names
from basert.cli.local import serve_for_me
from basert.cli.rooms import find_bundle
from basert.client import Client, ModelCard, RequestFailed

Command = Callable[..., Any]

# name -> (type, help); absent flags leave the choice to the server
SAMPLING: dict[str, tuple[Any, str]] = {
    "temperature": (click.FloatRange(0, 2), "0 is greedy."),
    "top_p": (click.FloatRange(0, 1), "Draw from the likeliest tokens of this much probability."),
    "top_k": (click.IntRange(0), "Draw from this many likeliest tokens; 0 from all."),
    "min_p": (click.FloatRange(0, 1), "Leave out tokens less likely than this share of the likeliest."),
    "presence_penalty": (click.FloatRange(-2, 2), "Make tokens that occurred less likely."),
    "frequency_penalty": (click.FloatRange(-2, 2), "Likewise, by how often they occurred."),
    "repetition_penalty": (click.FloatRange(0, min_open=True), "Divide the logits of tokens that occurred."),
    "seed": (click.INT, "The same request with the same seed gets the same answer."),
}


@dataclass(frozen=True)
class Target:
    """A server that answers, and the model that is meant; the bundle, where the server is our own."""

    url: str
    api_key: str | None
    card: ModelCard
    bundle: Path | None = None

    @property
    def model(self) -> str:
        return self.card.id


def connection_options(command: Command) -> Command:
    """MODEL, --url and --api-key."""
    model = click.argument("model", required=False, shell_complete=bundle_names)
    return server_options(model(command))


def server_options(command: Command) -> Command:
    """--url and --api-key."""
    for decorate in (
        click.option(
            "--api-key", envvar="BASERT_API_KEY", show_envvar=True, help="Key for the server at --url."
        ),
        click.option(
            "--url",
            metavar="URL",
            envvar="BASERT_URL",
            show_envvar=True,
            help="Use the server that runs there.",
        ),
    ):
        command = decorate(command)
    return command


def sampling_options(max_tokens: int) -> Callable[[Command], Command]:
    """--max-tokens, --stop, and one flag for each entry of SAMPLING."""

    def decorate(command: Command) -> Command:
        for name, (kind, text) in reversed(SAMPLING.items()):
            command = click.option("--" + name.replace("_", "-"), name, type=kind, metavar="N", help=text)(
                command
            )
        command = click.option(
            "--stop", multiple=True, metavar="TEXT", help="End before this text; repeats."
        )(command)
        bound = f"End after this many tokens.  [default: {max_tokens}, at most half of the context]"
        return click.option("--max-tokens", type=click.IntRange(1), metavar="N", help=bound)(command)

    return decorate


def request_fields(flags: dict[str, Any], card: ModelCard, max_tokens: int) -> dict[str, Any]:
    """Flags as a request's fields, without those that were not given, but for --max-tokens."""
    half = (card.max_model_len or sys.maxsize) // 2
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    return {"max_tokens": min(max_tokens, half), **given}


@contextlib.contextmanager
def connect(
    model: str | None, url: str | None, api_key: str | None, flags: Sequence[str] = ()
) -> Generator[Target]:
    """The server at `url`, or else one of our own for the bundle, which ends with the block."""
    if url:
        yield asyncio.run(_find(url, api_key, model))
        return
    if not model:
        raise click.UsageError("name a MODEL (`basert list` shows them), or a server with --url.")
    bundle = find_bundle(model)
    with serve_for_me(bundle, flags) as server:
        target = asyncio.run(_find(server.url, server.api_key, None))
        yield dataclasses.replace(target, bundle=bundle)


async def _find(url: str, api_key: str | None, model: str | None) -> Target:
    """The server's model of that name, or adapter; without a name, its only model."""
    async with Client(url, api_key) as client:
        if model is not None:
            return Target(url, api_key, await client.model(model))
        cards = [card for card in await client.models() if card.parent is None]
    if len(cards) != 1:
        names = ", ".join(card.id for card in cards) or "no model"
        raise RequestFailed(f"{url} serves {names}; name the MODEL that you mean.")
    return Target(url, api_key, cards[0])
