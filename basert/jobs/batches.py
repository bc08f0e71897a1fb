"""Batches as clients see them: made, told of, cancelled. Knows no HTTP, and nothing of how they are run.

    validating -> in_progress -> finalizing -> completed
        |             |  `-> expired
        |             `-> cancelling -> cancelled     (from validating, too)
        `-> failed

Clients make a batch and ask for its end; everything else is done by whoever holds it (claims.py).
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from basert.config import AppConfig
from basert.errors import InvalidRequest
from basert.jobs.database import Database
from basert.jobs.files import unexpired
from basert.jobs.records import Query, find, new_name, now, page
from basert.jobs.tables import batches, files
from basert.schema.batches import BatchErrors, BatchList, BatchObject, BatchRequest, RequestCounts
from basert.schema.files import BATCH
from basert.schema.response_object import InputDetails, OutputDetails, ResponseUsage

_PLAIN = ("id", "endpoint", "input_file_id", "status", "output_file_id", "error_file_id")
_TIMES = (
    *("created_at", "expires_at", "in_progress_at", "finalizing_at", "completed_at"),
    *("failed_at", "expired_at", "cancelling_at", "cancelled_at"),
)


class Batches:
    def __init__(self, database: Database, config: AppConfig) -> None:
        self._database = database
        self._config = config

    def create(self, request: BatchRequest, owner: str) -> BatchObject:
        """Raises InvalidRequest when there is no such file, or it is no batch's."""
        created, expiry = now(), request.output_expires_after
        row = {
            "id": new_name("batch_"),
            "owner": owner,
            "endpoint": request.endpoint,
            "input_file_id": request.input_file_id,
            "status": "validating",
            "metadata": request.metadata and msgspec.json.encode(request.metadata).decode(),
            "output_seconds": expiry and expiry.seconds,
            "created_at": created,
            "expires_at": created + self._config.batch_window,
        }
        with self._database.writing() as tx:
            # Locked, it is not deleted before the batch is there.
            name, param = request.input_file_id, "input_file_id"
            purpose = find(tx, files, name, owner, "file", unexpired(), lock=True, param=param).purpose
            if purpose != BATCH:
                raise InvalidRequest(
                    f"The file was uploaded for {purpose!r}; upload it with 'purpose': 'batch'.",
                    param="input_file_id",
                )
            return told(tx.execute(sa.insert(batches).values(row).returning(batches)).one())

    def get(self, name: str, owner: str) -> BatchObject:
        """Raises NotFound."""
        with self._database.reading() as tx:
            return told(find(tx, batches, name, owner, "batch"))

    def page(self, query: Query) -> BatchList:
        """Raises InvalidRequest."""
        with self._database.reading() as tx:
            found = page(tx, batches, query)
        listed = [told(row) for row in found.rows]
        first, last = (listed[0].id, listed[-1].id) if listed else (None, None)
        return BatchList(listed, first, last, found.has_more)

    def cancel(self, name: str, owner: str) -> BatchObject:
        """Ask for its end; twice is once. Raises NotFound; InvalidRequest when it has an end already."""
        with self._database.writing() as tx:
            batch = find(tx, batches, name, owner, "batch", lock=True)
            if batch.status in ("cancelling", "cancelled"):
                return told(batch)
            if batch.status not in ("validating", "in_progress"):
                raise InvalidRequest(
                    f"Cannot cancel a batch with status '{batch.status}'.",
                    param="batch_id",
                    code="batch_not_cancellable",
                )
            change = sa.update(batches).where(batches.c.id == batch.id)
            change = change.values(status="cancelling", cancelling_at=now())
            return told(tx.execute(change.returning(batches)).one())


def told(row: Any) -> BatchObject:
    """A record as clients see it."""
    return BatchObject(
        **{name: getattr(row, name) for name in (*_PLAIN, *_TIMES)},
        model=UNSET if row.model is None else row.model,
        errors=None if row.errors is None else msgspec.json.decode(row.errors, type=BatchErrors),
        request_counts=RequestCounts(row.total, row.completed, row.failed),
        usage=ResponseUsage(
            row.input_tokens,
            InputDetails(row.cached_tokens),
            row.output_tokens,
            OutputDetails(row.reasoning_tokens),
            row.input_tokens + row.output_tokens,
        ),
        metadata=None if row.metadata is None else msgspec.json.decode(row.metadata),
    )
