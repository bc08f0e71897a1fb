"""`basert complete`: one prompt in, its completion out; made for pipes. Nothing else is written to stdout."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click
import msgspec

from basert.cli.options import Target, connect, connection_options, request_fields, sampling_options
from basert.cli.pipes import piped, write
from basert.client import Client
from basert.errors import ConfigError

PATH = "/v1/completions"
WHAT = "completion"
MAX_TOKENS = 256  # the API's own default is 16


@click.command("complete")
@connection_options
@click.option("--prompt", metavar="TEXT", help="The prompt; - reads it from stdin, as a pipe does by itself.")
@click.option("--echo", is_flag=True, help="Print the prompt before its completion.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's whole answer as one line of JSON.")
@sampling_options(MAX_TOKENS)
def command(
    model: str | None, url: str | None, api_key: str | None, prompt: str | None, as_json: bool, **flags: Any
) -> None:
    """Complete a prompt with MODEL: a bundle's name or path, or a model of the server at --url.

    \b
    basert complete smollm2 --prompt "The sea is" --max-tokens 20
    echo "The sea is" | basert complete smollm2 | head -c 100

    Without --url, a server is started for this one prompt and ended after it. A newline at the very end of
    stdin is no part of the prompt.
    """
    text = _prompt(prompt)
    with piped(), connect(model, url, api_key) as target, asyncio.Runner() as runner:
        body = {"model": target.model, "prompt": text, **request_fields(flags, target.card, MAX_TOKENS)}
        runner.run(_print_json(target, body) if as_json else _print_text(target, body))


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise click.UsageError("give a --prompt, or pipe one in.")
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"stdin is not UTF-8 text (byte {error.start}); convert it first.") from None


async def _print_text(target: Target, body: dict[str, Any]) -> None:
    """Write text as it comes; a terminal gets a newline after it, a pipe nothing but the completion."""
    async with Client(target.url, target.api_key) as client:
        async for chunk in client.stream(PATH, body):
            write(chunk.text, WHAT)
    if sys.stdout.isatty():
        write("\n", WHAT)


async def _print_json(target: Target, body: dict[str, Any]) -> None:
    async with Client(target.url, target.api_key) as client:
        write(msgspec.json.encode(await client.post(PATH, body)).decode() + "\n", WHAT)
