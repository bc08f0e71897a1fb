"""`basert remove`: delete a bundle or an adapter from the store."""

from __future__ import annotations

import shutil
import sys

import click

from basert import store
from basert.adapter import is_adapter
from basert.cli.completion import bundle_names
from basert.cli.tables import size
from basert.errors import BundleError, ConfigError
from basert.manifest import MANIFEST


@click.command("remove")
@click.argument("name", shell_complete=bundle_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Remove the bundle or adapter NAME from the store. Refused while an engine of this machine runs it; a
    loaded adapter stays in its engine's memory until that ends."""
    bundle = store.bundle_path(name)
    if not ((bundle / MANIFEST).is_file() or is_adapter(bundle)):
        raise BundleError(store.missing(name))
    if not is_adapter(bundle) and store.in_use(bundle):
        raise BundleError(f"{name} is being served; stop that server first (or let it unload the model).")
    total = size(sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()))
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"to remove {name} ({total}) without being asked, add --yes.")
        click.confirm(f"Remove {bundle} ({total})?", abort=True)
    aside = bundle.with_name(f".{bundle.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)  # of a removal that was cut off
    bundle.rename(aside)  # at once, so that nobody meets half a bundle
    shutil.rmtree(aside)
    click.echo(f"removed {name} ({total} freed)")
