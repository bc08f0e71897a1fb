"""Shell completion: click's own scripts, and the names of bundles. Imports little: it runs at each Tab."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from basert import store

INSTALL = {
    "bash": "echo 'eval \"$(basert completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(basert completion zsh)\"' >> ~/.zshrc",
    "fish": "basert completion fish > ~/.config/fish/completions/basert.fish",
}


def bundle_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """What the shell offers for a MODEL: `click.argument(..., shell_complete=bundle_names)`."""
    return [bundle.name for bundle in store.bundles() if bundle.name.startswith(incomplete)]


@click.command("completion", epilog="\b\n" + "\n".join(INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and bundle names in SHELL. To install it:"""
    complete = get_completion_class(shell)
    assert complete is not None, "click completes bash, zsh and fish"
    click.echo(complete(context.find_root().command, {}, "basert", "_BASERT_COMPLETE").source())
