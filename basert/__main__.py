"""`basert`: the command line's entry. Each command is a file of basert.cli, loaded when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from basert import __version__
from basert.errors import BasertError, ConfigError

# name -> (module, one line for --help; the module's own docstring and options load only when it runs)
COMMANDS = {
    "serve": ("basert.cli.serve", "Serve bundles over the OpenAI HTTP API."),
    "export": ("basert.cli.export", "Compile a checkpoint into an engine bundle."),
    "export-lora": ("basert.cli.export_lora", "Make a LoRA adapter fit for an exported model."),
    "pull": ("basert.cli.pull", "Fetch a checkpoint without exporting it; --list shows the starter models."),
    "list": ("basert.cli.list", "List the bundles in the store."),
    "inspect": ("basert.cli.inspect", "Show a bundle: graphs, shapes, sizes, parity, provenance."),
    "verify": ("basert.cli.verify", "Check a bundle's signature, hashes and golden outputs."),
    "sign": ("basert.cli.sign", "Sign a bundle, so that others can tell that it is yours."),
    "buckets": ("basert.cli.buckets", "Suggest an encoder's buckets from what a server saw."),
    "remove": ("basert.cli.remove", "Remove a bundle from the store."),
    "load": ("basert.cli.load", "Have a running server load a model."),
    "unload": ("basert.cli.unload", "Have a running server unload a model."),
    "swap": ("basert.cli.swap", "Have a running server answer with another model, without a pause."),
    "chat": ("basert.cli.chat", "Talk to a model on the terminal."),
    "complete": ("basert.cli.complete", "Complete a prompt; reads and writes pipes."),
    "transcribe": ("basert.cli.transcribe", "Write down what recordings say; text, subtitles or JSON."),
    "bench": ("basert.cli.bench", "Measure a running server or a bundle."),
    "key": ("basert.cli.key", "Make API keys, and pairs of keys to sign bundles with."),
    "completion": ("basert.cli.completion", "Print a shell completion script."),
}
HIDDEN = {"bench-peers": "basert.cli.bench_peers"}  # what only a checkout needs (`make bench-peers`)


class LazyGroup(click.Group):
    """Lists commands without importing them, so that `--help` and every start stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = HIDDEN.get(cmd_name) or COMMANDS.get(cmd_name, (None,))[0]
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="basert")
def cli() -> None:
    """Compile models and serve them behind the OpenAI HTTP API."""


def main() -> None:
    """Run the command line. A BasertError is one sentence on stderr: exit 2 for a wrong setting, else 1."""
    try:
        cli(prog_name="basert")
    except BasertError as error:
        click.echo(f"basert: {error.message}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
