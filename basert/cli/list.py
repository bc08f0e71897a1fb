"""`basert list`: the bundles of the store, and the adapters."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from basert import store
from basert.adapter import Adapter, is_adapter, read_adapter
from basert.cli.tables import age, size, table
from basert.errors import BundleError
from basert.manifest import Manifest, read_manifest

HEADS = ("NAME", "VARIANT", "FAMILY", "SIZE", "CONTEXT", "AGE")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(as_json: bool) -> None:
    """List the bundles and adapters in the model store ($BASERT_HOME, else the XDG data folder)."""
    found = [(bundle, *_read(bundle)) for bundle in sorted([*store.bundles(), *store.adapters()])]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([_fields(*entry) for entry in found]), indent=2))
    elif found:
        click.echo(table(HEADS, [_row(bundle, there) for bundle, there, _ in found]))
        for _, _, trouble in found:
            if trouble:
                click.echo(f"\n{trouble}", err=True)
    else:
        click.echo(f"{store.store_root()} has no bundles yet; `basert export smollm2` makes one.", err=True)


def _read(bundle: Path) -> tuple[Manifest | Adapter | None, str]:
    try:
        return read_adapter(bundle) if is_adapter(bundle) else read_manifest(bundle), ""
    except BundleError as error:
        return None, error.message


def _row(bundle: Path, manifest: Manifest | Adapter | None) -> tuple[str, ...]:
    if manifest is None:
        return (bundle.name, "unusable", "", "", "", "")
    if isinstance(manifest, Adapter):
        total = size(sum(file.bytes for file in manifest.files))
        return (bundle.name, "lora", f"adapter of {manifest.base}", total, "", age(manifest.created))
    return (
        bundle.name,
        manifest.variant,
        f"{manifest.family} ({manifest.provenance.architecture})",
        size(sum(file.bytes for file in manifest.files)),
        f"{manifest.max_context}",
        age(manifest.provenance.created),
    )


def _fields(bundle: Path, manifest: Manifest | Adapter | None, trouble: str) -> dict[str, object]:
    if manifest is None:
        return {"name": bundle.name, "path": str(bundle), "error": trouble}
    if isinstance(manifest, Adapter):
        return {
            "name": bundle.name,
            "path": str(bundle),
            "variant": "lora",
            "base": manifest.base,
            "bytes": sum(file.bytes for file in manifest.files),
            "created": manifest.created,
        }
    return {
        "name": bundle.name,
        "path": str(bundle),
        "variant": manifest.variant,
        "family": manifest.family,
        "architecture": manifest.provenance.architecture,
        "bytes": sum(file.bytes for file in manifest.files),
        "max_context": manifest.max_context,
        "created": manifest.provenance.created,
    }
