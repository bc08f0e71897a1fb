"""Files that clients leave here: records and contents together. Knows no HTTP.

A content gets its name before it gets its record, and loses it after: a record always has its content, and a
content without a record is one that a crash left, which is swept away. All of this blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from basert.config import AppConfig
from basert.errors import InvalidRequest, PayloadTooLarge
from basert.jobs.contents import Contents, Draft
from basert.jobs.database import Database
from basert.jobs.records import ACTIVE, Query, find, new_name, now, page
from basert.jobs.tables import batches, files
from basert.schema.files import FileList, FileObject, Purpose


@dataclass(frozen=True)
class Label:
    """What a file is, beside its content."""

    owner: str
    purpose: Purpose
    filename: str
    seconds: int | None = None  # that it is kept; None: as long as the server keeps files


class Files:
    def __init__(self, database: Database, contents: Contents, config: AppConfig) -> None:
        self._database = database
        self._contents = contents
        self._config = config

    def draft(self) -> Draft:
        return self._contents.draft()

    def check_room(self, owner: str, size: int) -> None:
        """Raises PayloadTooLarge when a file of so many bytes is more than may be kept."""
        with self._database.reading() as tx:
            self._check_room(tx, owner, size)

    def add(self, draft: Draft, label: Label) -> FileObject:
        """Keep what was uploaded. Raises PayloadTooLarge."""
        self.check_room(label.owner, draft.size)
        name = new_name("file-")
        draft.keep(name)
        try:
            with self._database.writing() as tx:
                if self._database.is_shared:  # else nobody else writes now
                    tx.execute(sa.text(f"LOCK TABLE {files.name} IN SHARE ROW EXCLUSIVE MODE"))
                self._check_room(tx, label.owner, draft.size)
                return self.register(tx, name, draft, label)
        except PayloadTooLarge:
            self._contents.remove(name)
            raise

    def register(self, tx: sa.Connection, name: str, draft: Draft, label: Label) -> FileObject:
        """Record a draft that was kept under this name."""
        created = now()
        seconds = self._config.files_expiry if label.seconds is None else label.seconds
        row = {
            "id": name,
            "owner": label.owner,
            "purpose": label.purpose,
            "filename": label.filename,
            "bytes": draft.size,
            "sha256": draft.sha256,
            "created_at": created,
            "expires_at": created + seconds if seconds else None,
        }
        return _told(tx.execute(sa.insert(files).values(row).returning(files)).one())

    def get(self, name: str, owner: str) -> FileObject:
        """Raises NotFound."""
        with self._database.reading() as tx:
            return _told(find(tx, files, name, owner, "file", unexpired()))

    def content(self, name: str, owner: str) -> tuple[FileObject, Path]:
        """Raises NotFound."""
        told = self.get(name, owner)
        return told, self._contents.path(told.id)

    def page(self, query: Query) -> FileList:
        """Raises InvalidRequest."""
        conditions = [] if query.purpose is None else [files.c.purpose == query.purpose]
        with self._database.reading() as tx:
            found = page(tx, files, query, unexpired(), *conditions)
        told = [_told(row) for row in found.rows]
        first, last = (told[0].id, told[-1].id) if told else (None, None)
        return FileList(told, first, last, found.has_more)

    def remove(self, name: str, owner: str) -> None:
        """Raises NotFound; InvalidRequest for what a batch still reads."""
        with self._database.writing() as tx:
            found = find(tx, files, name, owner, "file", unexpired(), lock=True)
            reading = sa.select(batches.c.id).where(
                batches.c.input_file_id == name, batches.c.status.in_(ACTIVE)
            )
            if batch := tx.execute(reading.limit(1)).scalar():
                raise InvalidRequest(
                    f"The file is the input of {batch}, which is not done; cancel that first.",
                    param="file_id",
                    code="file_in_use",
                )
            tx.execute(sa.delete(files).where(files.c.id == found.id))
        self._contents.remove(found.id)

    def sweep(self) -> int:
        """Remove what has expired, and what crashes have left; return how many files that were."""
        read = sa.select(batches.c.input_file_id).where(batches.c.status.in_(ACTIVE))
        gone = sa.delete(files).where(~unexpired(), files.c.id.not_in(read)).returning(files.c.id)
        with self._database.writing() as tx:
            expired = list(tx.scalars(gone))
        for name in expired:
            self._contents.remove(name)
        return len(expired) + self._contents.sweep(
            lambda _: self._ids(sa.select(files.c.id)),
            lambda _: self._ids(sa.select(batches.c.id).where(batches.c.status.in_(ACTIVE))),
        )

    def _ids(self, query: sa.Select[Any]) -> set[str]:
        with self._database.reading() as tx:
            return set(tx.scalars(query))

    def _check_room(self, tx: sa.Connection, owner: str, size: int) -> None:
        total = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
        limits = (
            (self._config.files_quota_bytes, total, "All files"),
            (self._config.files_key_quota_bytes, total.where(files.c.owner == owner), "Your files"),
        )
        for limit, query, whose in limits:
            if limit is not None and (taken := int(tx.execute(query).scalar_one())) + size > limit:
                raise PayloadTooLarge(
                    f"{whose} may take {limit} bytes here, and {taken} are taken; delete some first.",
                    param="file",
                    code="storage_quota_exceeded",
                )


def unexpired() -> sa.ColumnElement[bool]:
    return sa.or_(files.c.expires_at.is_(None), files.c.expires_at > now())


def _told(row: Any) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=row.created_at,
        expires_at=UNSET if row.expires_at is None else row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
        sha256=row.sha256,
    )
