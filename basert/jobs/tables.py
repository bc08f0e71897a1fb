"""The tables of files and batches. Knows SQL's types, and no database."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 1  # of the tables

# Ids of their own would not tell what came first; of two made in one second, neither would created_at.
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

metadata = sa.MetaData()

schema = sa.Table(
    "basert_schema",
    metadata,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("name", sa.String, nullable=False),  # of this database
)

files = sa.Table(
    "basert_files",
    metadata,
    sa.Column("number", _Number, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("filename", sa.String, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Index("basert_files_by_owner", "owner", "number"),
)

batches = sa.Table(
    "basert_batches",
    metadata,
    sa.Column("number", _Number, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("endpoint", sa.String, nullable=False),
    sa.Column("input_file_id", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("metadata", sa.String),  # JSON
    sa.Column("errors", sa.String),  # JSON, of a file that is no batch
    sa.Column("model", sa.String),
    sa.Column("output_seconds", sa.BigInteger),  # that its outputs are kept
    sa.Column("output_file_id", sa.String),
    sa.Column("error_file_id", sa.String),
    *(
        sa.Column(name, sa.BigInteger, nullable=name != "created_at")
        for name in (
            *("created_at", "expires_at", "in_progress_at", "finalizing_at", "completed_at"),
            *("failed_at", "expired_at", "cancelling_at", "cancelled_at"),
        )
    ),
    *(
        sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        for name in (
            *("total", "completed", "failed"),  # lines
            *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
        )
    ),
    # Who runs it: nobody, once `leased` has passed by the database's clock. Each has a token of its own.
    sa.Column("holder", sa.String),
    sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("leased", sa.Double, nullable=False, server_default="0"),
    sa.Index("basert_batches_by_owner", "owner", "number"),
    sa.Index("basert_batches_by_status", "status", "number"),
)

answers = sa.Table(
    "basert_answers",
    metadata,
    sa.Column("batch", sa.String, primary_key=True),
    sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("token", sa.BigInteger, nullable=False),  # whose part has it, and where there
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
)
