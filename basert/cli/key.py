"""`basert key`: API keys for the key file, and pairs of keys that bundles are signed with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from basert import keys
from basert.errors import ConfigError


@click.group("key")
def command() -> None:
    """Make API keys, and pairs of keys to sign bundles with."""


@command.command("new", short_help="Print a fresh API key and its line for the key file.")
@click.option("--name", metavar="NAME", help="What the key is called in logs and figures.")
@click.option("--admin", is_flag=True, help="It may do what only administrators may.")
@click.option("--models", metavar="NAMES", help="Models it may use, with commas; * stands for anything.")
@click.option("--requests-per-minute", metavar="N", help="Requests it may send in a minute.")
@click.option("--tokens-per-minute", metavar="N", help="Tokens, read and generated, it may use in a minute.")
@click.option("--priority", metavar="|".join(keys.PRIORITIES), help="The most urgent its requests may be.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the line behind this key file's last, and print nothing but the key.",
)
def new(file: Path | None, admin: bool, **said: str | None) -> None:
    """Print a fresh API key, shown this once, and its line for the key file, which has the hash only.

    A server reads the file again when it has changed. Clients send the key as bearer token.
    """
    secret = keys.new()
    fields = [f"{name.replace('_', '-')}={value}" for name, value in said.items() if value is not None]
    fields += ["admin"] * admin
    key = keys.parse(" ".join([secret, *fields]), "basert key new")
    assert key is not None
    if file is None:
        click.echo(f"key   {secret}\nline  {key.line()}")
        return
    _append(file, key.line())
    click.echo(secret)


def _append(file: Path, line: str) -> None:
    """A file that is broken, or not ours to write, is left as it is."""
    try:
        before = file.read_text() if file.exists() else ""
        keys.parse_file(before, str(file))
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as end:
            end.write("\n" * bool(before and not before.endswith("\n")) + line + "\n")
    except OSError as error:
        raise ConfigError(f"--file {file} cannot be written: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--file {file} is not UTF-8 text.") from None


@command.command("pair", short_help="Make a pair of keys to sign and verify bundles with.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def pair(file: Path) -> None:
    """Make a pair of keys: FILE signs bundles and is to be kept secret, FILE.pub verifies them."""
    from basert import signing

    public = signing.make_pair(file)
    click.echo(f"{file} signs: keep it secret. {public} verifies: give it to whoever serves the bundles.")
