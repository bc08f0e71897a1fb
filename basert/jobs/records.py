"""What records have in common: names of our own making, owners, and lists a page at a time."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from basert.errors import InvalidRequest, NotFound

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")  # a batch that is not done

_NAME = re.compile(r"[a-z]+[-_][0-9a-f]{32}")


def new_name(prefix: str) -> str:
    """prefix: with what separates it, as "file-"."""
    return prefix + secrets.token_hex(16)


def is_name(text: str) -> bool:
    """Whether it may be one of ours; nothing else is looked for, on the disk or in the database."""
    return _NAME.fullmatch(text) is not None


def now() -> int:
    """Unix seconds."""
    return int(time.time())


@dataclass(frozen=True)
class Query:
    """Which records a list is to have: `limit` of those behind the one that is named."""

    owner: str
    limit: int
    after: str | None = None
    ascending: bool = False  # oldest first
    purpose: str | None = None  # of files


@dataclass(frozen=True)
class Page:
    rows: list[Any]
    has_more: bool


def find(
    tx: sa.Connection,
    table: sa.Table,
    name: str,
    owner: str,
    what: str,
    *conditions: sa.ColumnElement[bool],
    lock: bool = False,
    param: str | None = None,
) -> Any:
    """A record as a row. lock: nobody else may change it until this transaction ends. Raises NotFound.

    param: of the request, that names it; if not {what}_id.
    """
    row = None
    if is_name(name):
        query = sa.select(table).where(table.c.id == name, table.c.owner == owner, *conditions)
        row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"No such {what}: '{name}'.", param=param or f"{what}_id")
    return row


def page(tx: sa.Connection, table: sa.Table, query: Query, *conditions: sa.ColumnElement[bool]) -> Page:
    """Raises InvalidRequest when there is nothing of the name that the list is to go on behind."""
    number, ascending = table.c.number, query.ascending
    chosen = sa.select(table).where(table.c.owner == query.owner, *conditions)
    if query.after is not None:
        start = _number(tx, table, query.after, query.owner)
        chosen = chosen.where(number > start if ascending else number < start)
    chosen = chosen.order_by(number if ascending else number.desc()).limit(query.limit + 1)
    rows = list(tx.execute(chosen))
    return Page(rows[: query.limit], len(rows) > query.limit)


def _number(tx: sa.Connection, table: sa.Table, name: str, owner: str) -> int:
    if is_name(name):
        query = sa.select(table.c.number).where(table.c.id == name, table.c.owner == owner)
        number: int | None = tx.execute(query).scalar()
        if number is not None:
            return number
    raise InvalidRequest(f"Invalid 'after': there is nothing with the id '{name}'.", param="after")
