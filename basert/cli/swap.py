"""`basert swap`: a name that a running server knows means another bundle, without a pause."""

from __future__ import annotations

import click

from basert.cli.completion import bundle_names
from basert.cli.options import server_options
from basert.cli.ordering import HERE, ordered


@click.command("swap")
@click.argument("alias")
@click.argument("model", metavar="BUNDLE", shell_complete=bundle_names)
@server_options
def command(alias: str, model: str, url: str | None, api_key: str | None) -> None:
    """Have a running server answer for ALIAS with BUNDLE, and wait until it does.

    \b
    basert swap chat smollm2-w8a8      an alias (`basert serve --alias`) means another model
    basert swap smollm2 smollm2        a model was exported again under its own name

    BUNDLE, a name in the server's own store, is loaded and checked beside what ALIAS means now, which goes on
    answering meanwhile and ends what it has begun; then it is unloaded, unless another alias means it. If
    BUNDLE does not load, nothing changes. Both have to fit into memory at once. Without --url the server of
    this machine is meant, at its default port.
    """
    body = {"alias": alias, "model": model}
    card = ordered(url, api_key, "/v1/models/swap", body, f"swap {alias}", alias)
    click.echo(f"{card['id']} is {model} ({card['system_fingerprint']}) at {url or HERE}")
