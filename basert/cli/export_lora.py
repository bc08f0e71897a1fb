"""`basert export-lora`: flags -> AdapterRequest -> one call of the export room, loaded only here."""

from __future__ import annotations

import signal
import sys

import click

from basert.cli.completion import bundle_names
from basert.cli.parity import numbers_line
from basert.cli.rooms import export_extra
from basert.cli.tables import size


@click.command("export-lora")
@click.argument("folder", metavar="ADAPTER_FOLDER")
@click.option(
    "--base",
    required=True,
    metavar="BUNDLE",
    shell_complete=bundle_names,
    help="The exported model that the adapter was trained on: its name in the store, or its folder.",
)
@click.option("--name", metavar="NAME", help="What to call the adapter.  [default: after the folder]")
@click.option("--force", is_flag=True, help="Replace an adapter of that name that came from another folder.")
def command(folder: str, base: str, name: str | None, force: bool) -> None:
    """Make a LoRA adapter fit to be served with an exported model.

    ADAPTER_FOLDER is what PEFT saved: adapter_config.json and adapter_model.safetensors. The adapted model is
    compared with transformers and peft in fp32, and refused when it is too far away.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that nothing half-made is left
    with export_extra():
        from export.lora.pipeline import AdapterRequest, run

        bundle, adapter = run(AdapterRequest(folder, base, name, force))
    click.echo(f"adapter  {bundle} ({size(sum(file.bytes for file in adapter.files))})")
    click.echo(f"changes  {', '.join(adapter.modules)} (rank {adapter.rank}, {adapter.scaled})")
    click.echo(f"parity   {numbers_line(adapter.parity)}")
    click.echo(f"next     basert serve {adapter.base} --lora {adapter.name}")
