"""`basert completion`: prints click's own completion script; what can be completed, parameter types know."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

INSTALL = {
    "bash": "echo 'eval \"$(basert completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(basert completion zsh)\"' >> ~/.zshrc",
    "fish": "basert completion fish > ~/.config/fish/completions/basert.fish",
}


@click.command("completion", epilog="\b\n" + "\n".join(INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and bundle names in SHELL. To install it:"""
    complete = get_completion_class(shell)
    assert complete is not None, "click completes bash, zsh and fish"
    click.echo(complete(context.find_root().command, {}, "basert", "_BASERT_COMPLETE").source())
