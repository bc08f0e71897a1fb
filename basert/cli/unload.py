"""`basert unload`: a running server unloads a model."""

from __future__ import annotations

import click

from basert.cli.completion import bundle_names
from basert.cli.options import server_options
from basert.cli.ordering import HERE, ordered


@click.command("unload")
@click.argument("model", shell_complete=bundle_names)
@click.option("--lora", is_flag=True, help="MODEL is an adapter.")
@server_options
def command(model: str, lora: bool, url: str | None, api_key: str | None) -> None:
    """Have a running server unload MODEL, and wait until its memory is free.

    Requests that have begun may end, for as long as the server's --drain-timeout; new ones are refused.
    Without --url the server of this machine is meant, at its default port.
    """
    path, body = ("/v1/lora/unload", {"lora": model}) if lora else ("/v1/models/unload", {"model": model})
    ordered(url, api_key, path, body, f"unload {model}")
    click.echo(f"{model} is unloaded at {url or HERE}")
