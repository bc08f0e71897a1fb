"""`basert pull`: fetch a checkpoint into the cache without exporting it."""

from __future__ import annotations

import click

from basert.cli.rooms import export_extra
from basert.cli.tables import size, table


@click.command("pull")
@click.argument("source", required=False)
@click.option("--list", "show", is_flag=True, help="Show the starter models.")
def command(source: str | None, show: bool) -> None:
    """Fetch a checkpoint, so that `basert export` of the same SOURCE needs no network.

    SOURCE is the name of a starter model (see --list) or whatever else `basert export` takes.
    """
    if show:
        click.echo(_starters())
        return
    if source is None:
        raise click.UsageError("name a SOURCE, or see --list.")
    with export_extra():
        from export import sources

        fetched = sources.fetch(source)
    click.echo(f"source   {fetched.source.uri}")
    click.echo(f"licence  {fetched.source.licence or 'not stated'}")
    click.echo(f"files    {fetched.path}")
    click.echo(f"next     basert export {source}")


def _starters() -> str:
    from export.starters import STARTERS

    rows = [(one.name, size(one.size), one.licence, one.about) for one in STARTERS.values()]
    return table(("NAME", "SIZE", "LICENCE", ""), rows)
