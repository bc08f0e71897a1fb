"""A process that dies anywhere: every line of its batch comes out once, and nothing else is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basert.config import AppConfig
from basert.jobs import contents as folders
from basert.jobs.claims import Claim, ClaimLost, Claims
from basert.jobs.database import Database
from basert.jobs.office import Office, open_office, prepare
from basert.jobs.results import Part, Result, record
from basert.jobs.running import Job
from basert.jobs.tables import answers
from tests.jobs.making import begin, line, output, room


class Crash(BaseException):
    """The process is gone."""


class Steps:
    """Every step of this process on the disk or in the database; it dies before the one that is told."""

    def __init__(self) -> None:
        self.left: int | None = None  # None: it lives
        self.dead = False

    def take(self) -> None:
        if self.dead:
            raise Crash
        if self.left is not None:
            self.left -= 1
            self.dead = self.left < 0
            self.take()

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*args: Any, **kwargs: Any) -> Any:
            self.take()
            done = step(*args, **kwargs)
            self.take()
            return done

        return taken

    def transaction(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def taken(database: Database) -> Iterator[sa.Connection]:
            self.take()
            with real(database) as tx:
                yield tx
                self.take()
            self.take()

        return taken


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(os, "fsync", steps.around(os.fsync))
    monkeypatch.setattr(Path, "rename", steps.around(Path.rename))
    monkeypatch.setattr(Path, "unlink", steps.around(Path.unlink))
    monkeypatch.setattr(Database, "writing", steps.transaction(Database.writing))
    return steps


def run(office: Office, holder: str, **config: Any) -> None:
    """One holder's try at whatever there is to do, until it is done or dies."""

    async def tried() -> None:
        claim = await office.database.run(Claims(office.database, holder).take)
        if claim is not None:
            await Job(claim, room(office, **config)).run()

    try:
        asyncio.run(tried())
    except Crash:
        pass
    except BaseExceptionGroup as group:
        if (unexpected := group.split(Crash)[1]) is not None:
            raise unexpected from None


def torn(folder: Path, share: float) -> None:
    """What had not reached the disk is lost in part: the end of the newest part file."""
    parts = sorted((folder / folders.PARTS).iterdir(), key=lambda path: int(path.suffix[1:]))
    if parts:
        size = parts[-1].stat().st_size
        recorded = _recorded(folder, int(parts[-1].suffix[1:]))
        os.truncate(parts[-1], recorded + int((size - recorded) * share))


def _recorded(folder: Path, token: int) -> int:
    office = open_office(AppConfig(), folder)
    with office.database.reading() as tx:
        ends = tx.scalars(sa.select(answers.c.offset + answers.c.length).where(answers.c.token == token))
        last = max(ends, default=0)
    office.database.close()
    return last


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.integers(1, 12),
    refused=st.sets(st.integers(0, 11)),
    crashes=st.lists(st.tuples(st.integers(0, 25), st.floats(0, 1)), max_size=6),
    window=st.sampled_from([0, 1000]),
)
def test_each_line_comes_out_once_whatever_dies_where(
    steps: Steps,
    tmp_path_factory: pytest.TempPathFactory,
    lines: int,
    refused: set[int],
    crashes: list[tuple[int, float]],
    window: int,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    steps.left, steps.dead = None, False
    config = AppConfig(files_dir=folder, batch_window=window)
    prepare(config)
    office = open_office(config, folder)
    asked = [
        line(f"r{i}", body={"model": "m", "user": "refuse" if i in refused else "x"}) for i in range(lines)
    ]
    batch = begin(office, asked)
    for holder, (step, share) in enumerate(crashes):
        steps.left = step
        run(office, f"holder {holder}")
        died, steps.left, steps.dead = steps.dead, None, False
        if died:
            torn(folder, share)
            forget_lease(office)
    run(office, "the last")
    done = office.batches.get(batch.id, "")
    right, wrong = output(office, done)
    expected = {f"r{i}" for i in range(lines)}
    assert len(right) + len(wrong) == lines
    assert {one["custom_id"] for one in (*right, *wrong)} == expected
    for one in (*right, *wrong):
        if one["error"] is None:
            i = int(one["custom_id"][1:])
            assert one["response"]["status_code"] == (400 if i in refused else 200)
            assert one["response"]["body"] == asked[i]["body"]
        else:
            assert (one["error"]["code"], one["response"]) == ("batch_expired", None)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (lines, len(right), len(wrong))
    assert done.status == ("expired" if any(one["error"] for one in wrong) else "completed")
    nothing_is_left(office, folder, done.output_file_id, done.error_file_id, done.input_file_id)
    office.database.close()


def forget_lease(office: Office) -> None:
    """Time passes."""
    with office.database.writing() as tx:
        tx.execute(sa.text("UPDATE basert_batches SET leased = 0"))


def nothing_is_left(office: Office, folder: Path, *names: str | None) -> None:
    grace, folders.GRACE_SECONDS = folders.GRACE_SECONDS, -1.0
    try:
        office.files.sweep()
    finally:
        folders.GRACE_SECONDS = grace
    assert {path.name for path in (folder / folders.CONTENTS).iterdir()} == {n for n in names if n}
    assert list((folder / folders.PARTS).iterdir()) == []
    with office.database.reading() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(answers)) == 0


def test_who_was_thought_dead_records_nothing(office: Office) -> None:
    begin(office, [line("a"), line("b")])
    ours = Claims(office.database, "ours").take()
    assert ours is not None
    part = Part(office.contents.parts, ours)
    record(office.database, ours, part, [Result(1, True, b"{}")])
    forget_lease(office)
    theirs = Claims(office.database, "theirs").take()
    assert theirs == Claim(ours.batch, ours.token + 1)
    with pytest.raises(ClaimLost):
        record(office.database, ours, part, [Result(2, True, b"{}")])
    other = Part(office.contents.parts, theirs)
    record(office.database, theirs, other, [Result(2, True, b"{}")])
    with pytest.raises(sa.exc.IntegrityError):  # no line has two answers, whoever gives them
        record(office.database, theirs, other, [Result(1, True, b"{}")])
    part.close()
    other.close()
