"""`basert load`: a running server loads one more model."""

from __future__ import annotations

import click

from basert.cli.completion import bundle_names
from basert.cli.options import server_options
from basert.cli.ordering import HERE, ordered


@click.command("load")
@click.argument("model", shell_complete=bundle_names)
@click.option("--lora", is_flag=True, help="MODEL is an adapter, for a model that the server has.")
@server_options
def command(model: str, lora: bool, url: str | None, api_key: str | None) -> None:
    """Have a running server load MODEL, and wait until it can answer.

    \b
    basert load smollm2
    basert load --lora pirate --url http://10.0.0.5:8080

    MODEL is the name of a bundle in the server's own store. Whether it fits into memory is looked at first,
    and a model that does not load leaves all others alone. Without --url the server of this machine is meant,
    at its default port. Ctrl-C ends the waiting, not the loading.
    """
    if lora:
        told = ordered(url, api_key, "/v1/lora/load", {"lora": model}, f"load {model}")
        click.echo(f"{model} is loaded, an adapter of {told['parent']}, at {url or HERE}")
        return
    card = ordered(url, api_key, "/v1/models/load", {"model": model}, f"load {model}", model)
    click.echo(f"{card['id']} is loaded ({card['system_fingerprint']}) at {url or HERE}")
