"""Answers of a batch's lines, recorded so that each line has one, and put together to files at its end.

Whoever holds a batch appends answers to a part file of its own. What has been written, and is on the disk, is
recorded with its place in one transaction, which is refused to whoever does not hold the batch any more. What
a crash leaves in a part without a record never was an answer: the line is run again. All of this blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import sqlalchemy as sa

from basert.jobs.claims import Claim, held
from basert.jobs.contents import Contents, Draft, sync_folder, told
from basert.jobs.database import Database
from basert.jobs.tables import answers, batches


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0


_NO_DETAILS = _Details()


class _Usage(msgspec.Struct):
    """As chat and as responses have it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


@dataclass(frozen=True)
class Tokens:
    """What answers took."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, body: bytes) -> Tokens:
        """By an answer's usage, if it has one."""
        try:
            usage = msgspec.json.decode(body, type=_Body).usage
        except msgspec.MsgspecError:
            usage = None
        if usage is None:
            return cls()
        read = usage.input_tokens_details or usage.prompt_tokens_details or _NO_DETAILS
        made = usage.output_tokens_details or usage.completion_tokens_details or _NO_DETAILS
        return cls(
            usage.input_tokens or usage.prompt_tokens,
            read.cached_tokens or 0,
            usage.output_tokens or usage.completion_tokens,
            made.reasoning_tokens or 0,
        )


@dataclass(frozen=True)
class Result:
    """A line of the output or, if not ok, of the error file: without its end."""

    line: int
    ok: bool
    content: bytes
    tokens: Tokens = Tokens()


class Part:
    """A part file, whose name no other claim has."""

    def __init__(self, folder: Path, claim: Claim) -> None:
        """Raises Unavailable, as writing does."""
        with told():
            self._file = (folder / _part(claim.batch, claim.token)).open("xb")
            sync_folder(folder)
        self._size = 0

    def append(self, contents: Iterable[bytes]) -> list[tuple[int, int]]:
        """Have them on the disk, and return where each begins and its length."""
        places = []
        with told():
            for content in contents:
                self._file.write(content + b"\n")
                places.append((self._size, len(content) + 1))
                self._size += len(content) + 1
            self._file.flush()
            os.fsync(self._file.fileno())
        return places

    def close(self) -> None:
        self._file.close()


def _part(batch: str, token: int) -> str:
    return f"{batch}.{token}"


def record(database: Database, claim: Claim, part: Part, results: Sequence[Result]) -> None:
    """Make them the answers of their lines. Raises ClaimLost; Unavailable: then they may be, or not."""
    places = part.append(result.content for result in results)
    rows = [
        {
            "batch": claim.batch,
            "token": claim.token,
            "line": result.line,
            "offset": start,
            "length": length,
            "ok": result.ok,
        }
        for result, (start, length) in zip(results, places, strict=True)
    ]
    done = sum(result.ok for result in results)
    counts = {"completed": done, "failed": len(results) - done}
    counts |= {
        field.name: sum(getattr(result.tokens, field.name) for result in results) for field in fields(Tokens)
    }
    with database.writing() as tx:
        held(tx, claim, **{name: batches.c[name] + more for name, more in counts.items()})
        tx.execute(sa.insert(answers), rows)


def recorded(database: Database, batch: str) -> set[int]:
    """The lines that have answers."""
    with database.reading() as tx:
        return set(tx.scalars(sa.select(answers.c.line).where(answers.c.batch == batch)))


def put_together(database: Database, batch: str, contents: Contents, *, ok: bool) -> Draft | None:
    """All recorded answers of one kind in the order of their lines; None if there are none."""
    query = sa.select(answers).where(answers.c.batch == batch, answers.c.ok == ok).order_by(answers.c.line)
    with database.reading() as tx:
        places = [(row.token, row.offset, row.length) for row in tx.execute(query)]
    if not places:
        return None
    draft = contents.draft()
    try:
        with told():
            _copy(places, batch, contents, draft)
    except BaseException:
        draft.close()
        raise
    return draft


def _copy(places: list[tuple[int, int, int]], batch: str, contents: Contents, draft: Draft) -> None:
    tokens = {token for token, _, _ in places}
    parts = {token: (contents.parts / _part(batch, token)).open("rb") for token in tokens}
    try:
        for token, start, length in places:
            parts[token].seek(start)
            draft.write(parts[token].read(length))
    finally:
        for part in parts.values():
            part.close()


def forget(tx: sa.Connection, batch: str) -> None:
    """The records of a batch's answers, which are in its files now."""
    tx.execute(sa.delete(answers).where(answers.c.batch == batch))


def remove_parts(contents: Contents, batch: str) -> None:
    for path in contents.parts.glob(f"{batch}.*"):
        path.unlink(missing_ok=True)
