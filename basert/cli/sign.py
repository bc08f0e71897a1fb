"""`basert sign`: a signature beside a bundle's files, which `basert serve --require-signature` asks for."""

from __future__ import annotations

from pathlib import Path

import click

from basert import progress, signing, store
from basert.cli.completion import bundle_names
from basert.cli.verify import check_files
from basert.manifest import SIGNATURE


@click.command("sign")
@click.argument("bundle", shell_complete=bundle_names)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The private key: elliptic curve, PEM. `basert key pair` makes one.",
)
def command(bundle: str, key: Path) -> None:
    """Sign a BUNDLE, or an adapter, that is as it was exported; the signature is its file model.sig."""
    path = store.find_adapter(bundle) if store.is_adapter_name(bundle) else store.find(bundle)
    check_files(path)
    with progress.task("signature"):
        signing.sign(path, key)
    click.echo(f"signed: {path / SIGNATURE}")
