"""`basert remove`: delete a bundle from the store."""

from __future__ import annotations

import shutil
import sys

import click

from basert import store
from basert.cli.completion import bundle_names
from basert.cli.tables import size
from basert.errors import BundleError, ConfigError
from basert.manifest import MANIFEST


@click.command("remove")
@click.argument("name", shell_complete=bundle_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Remove the bundle NAME from the store. Refused while an engine of this machine runs it."""
    bundle = store.bundle_path(name)
    if not (bundle / MANIFEST).is_file():
        raise BundleError(store.missing(name))
    if store.in_use(bundle):
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
