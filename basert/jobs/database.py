"""The database of files and batches: transactions, off the event loop. Knows two kinds of it, and no record.

SQLite by default: one file beside the files, which HTTP workers and the process that runs batches share. On
PostgreSQL several hosts can. What is committed is on the disk before anybody is told of it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from basert.errors import ConfigError, Unavailable
from basert.jobs.tables import VERSION, metadata, schema

THREADS = 4  # that a process has its transactions in
PATIENCE = 30.0  # seconds that a transaction waits for others
RETRY_AFTER = 2.0  # seconds
_LOCK = 0x6261736572740000  # whoever makes the tables in PostgreSQL holds this

T = TypeVar("T")
P = ParamSpec("P")

_log = logging.getLogger(__name__)


class Database:
    """Opened when first used. `reading` and `writing` block; the event loop goes through `run`."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that is none, or whose driver is not installed."""
        try:
            self._engine = _engine(sa.make_url(url))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--database-url needs the package {error.name}; install basert[postgres]."
            ) from None
        except (sa.exc.ArgumentError, ValueError):
            raise ConfigError("--database-url is no URL of a database.") from None
        self._threads = ThreadPoolExecutor(THREADS, "database")

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may use it as well."""
        return self._engine.dialect.name != "sqlite"

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of everything. Raises Unavailable."""
        with _told(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is kept whole, or not at all. Raises Unavailable: then it may be either."""
        with _told(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work with transactions, or with the disk, in a thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        except Unavailable as error:
            _log.error("%s (%s)", error.message, _first_line(error))
            raise

    def now(self) -> sa.ColumnElement[float]:
        """Seconds, by the clock that all who share the database share."""
        if self.is_shared:
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        return sa.literal(time.time(), sa.Double)

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()

    def prepare(self) -> str:
        """Make the tables, or bring them up to date; return a name that no other database has.

        Raises ConfigError, also when it cannot be reached.
        """
        try:
            with self.writing() as tx:
                if self.is_shared:
                    tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                return _migrate(tx)
        except Unavailable as error:
            mend = (
                "--database-url, or the database"
                if self.is_shared
                else f"or remove {self._engine.url.database}"
            )
            raise ConfigError(
                f"The database of files and batches cannot be used ({_first_line(error)}); mend {mend}."
            ) from None


def _migrate(tx: sa.Connection) -> str:
    schema.create(tx, checkfirst=True)
    found = tx.execute(sa.select(schema.c.version)).scalar()
    if found is None:
        metadata.create_all(tx)
        tx.execute(sa.insert(schema).values(version=VERSION, name=secrets.token_hex(16)))
    elif found > VERSION:
        raise ConfigError(
            "The database of files and batches was made by a newer basert (its tables have version "
            f"{found}, this one's {VERSION}); install that."
        )
    return str(tx.execute(sa.select(schema.c.name)).scalar_one())


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, pool_size=THREADS, pool_pre_ping=True, connect_args={"connect_timeout": int(PATIENCE)}
        )
    engine = sa.create_engine(url, pool_size=THREADS, connect_args={"timeout": PATIENCE})
    event.listen(engine, "connect", _opened)
    event.listen(engine, "begin", _begin)
    return engine


def _opened(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say when a transaction begins
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: sa.Connection) -> None:
    """A writer takes its turn at once: one that had read first might find that it has come too late."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _first_line(error: Unavailable) -> str:
    """Of what is behind it."""
    return str(error.__cause__).strip().partition("\n")[0]


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except (DBAPIError, sa.exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(
            "The database of files and batches cannot be reached; try again.",
            code="database_unavailable",
            retry_after=RETRY_AFTER,
        ) from cause
