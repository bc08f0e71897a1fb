"""Batches from their file to their files, in this process, over either database."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from basert.config import AppConfig
from basert.errors import InvalidRequest, NotFound, Unavailable
from basert.jobs import worker
from basert.jobs.claims import ClaimLost, Claims
from basert.jobs.database import Database
from basert.jobs.office import Office, open_office, prepare
from basert.jobs.records import ACTIVE, Query
from basert.jobs.running import Job
from basert.jobs.worker import Worker
from basert.schema.batches import BatchObject, BatchRequest
from tests.jobs.conftest import Opener
from tests.jobs.making import CHAT, begin, echo, line, output, put, room
from tests.postgres import Postgres


async def until(office: Office, batch: BatchObject, what: Callable[[BatchObject], bool]) -> BatchObject:
    while not what(now := await office.database.run(office.batches.get, batch.id, "")):
        await asyncio.sleep(0.01)
    return now


async def run(office: Office, *made: BatchObject, app: Any = echo, **settings: Any) -> list[BatchObject]:
    """What comes of them when a process runs."""
    stopped = asyncio.Event()
    working = asyncio.create_task(Worker(room(office, app, **settings), office.database).run(stopped))
    done = [await until(office, batch, lambda now: now.status not in ACTIVE) for batch in made]
    stopped.set()
    await working
    return done


class Gated:
    """An app that gives as many answers as it may; `seen` counts what was asked."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.full = asyncio.Event()  # as many are open as the gate lets in
        self.seen: Counter[str] = Counter()

    def permit(self, answers: int) -> None:
        for _ in range(answers):
            self.permits.release()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.seen[body.decode()] += 1
        if len(self.seen) == 4:
            self.full.set()
        await self.permits.acquire()

        async def again() -> Any:
            return {"body": body}

        await echo(scope, again, send)


async def test_from_file_to_files(office: Office) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    details = {
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    asked = [line(f"{i}", body={"model": "tiny", "usage": usage | details}) for i in range(300)]
    asked[7]["body"] = {"model": "tiny", "refuse": True}
    asked[8]["body"]["usage"] = {"input_tokens": 30, "output_tokens": 20}
    (batch,) = await run(office, begin(office, asked))
    assert (batch.status, batch.model) == ("completed", "tiny")
    right, wrong = output(office, batch)
    assert [one["custom_id"] for one in right] == [f"{i}" for i in range(300) if i != 7]
    assert right[0]["response"] == {"status_code": 200, "request_id": "req_1", "body": asked[0]["body"]}
    assert right[0]["error"] is None
    assert (wrong[0]["custom_id"], wrong[0]["response"]["status_code"], wrong[0]["error"]) == ("7", 400, None)
    assert len({one["id"] for one in (*right, *wrong)}) == 300
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (300, 299, 1)
    told = batch.usage
    assert (told.input_tokens, told.output_tokens, told.total_tokens) == (
        298 * 3 + 30,
        298 * 2 + 20,
        298 * 5 + 50,
    )
    assert (told.input_tokens_details.cached_tokens, told.output_tokens_details.reasoning_tokens) == (
        298,
        298,
    )
    assert batch.completed_at >= batch.finalizing_at >= batch.in_progress_at >= batch.created_at  # type: ignore[operator]
    assert list(office.contents.parts.iterdir()) == []


async def test_a_file_that_is_no_batch(office: Office) -> None:
    (batch,) = await run(office, begin(office, [line("a"), line("a"), line("b", method="GET")]))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_method"),
    ]


async def test_cancelling_keeps_what_is_done(office: Office) -> None:
    app = Gated()
    batch = begin(office, [line(f"{i}", body={"model": "m", "i": i}) for i in range(50)])
    stopped = asyncio.Event()
    working = asyncio.create_task(Worker(room(office, app), office.database).run(stopped))
    app.permit(10)
    await until(office, batch, lambda now: now.request_counts.completed == 10)
    told = await office.database.run(office.batches.cancel, batch.id, "")
    assert (told.status, told.cancelling_at is not None) == ("cancelling", True)
    again = await office.database.run(office.batches.cancel, batch.id, "")
    assert again.status in ("cancelling", "cancelled")
    done = await until(office, batch, lambda now: now.status == "cancelled")
    stopped.set()
    await working
    right, wrong = output(office, done)
    assert [one["custom_id"] for one in right] == [f"{i}" for i in range(10)]
    assert done.request_counts.completed == 10
    assert (wrong, done.request_counts.total) == ([], 50)
    assert done.cancelled_at is not None
    (other,) = await run(office, begin(office, [line("a")]))
    with pytest.raises(InvalidRequest, match="Cannot cancel a batch with status 'completed'"):
        office.batches.cancel(other.id, "")


async def test_a_batch_that_nobody_has_begun_is_cancelled(office: Office) -> None:
    batch = begin(office, [line("a")])
    assert office.batches.cancel(batch.id, "").status == "cancelling"
    (done,) = await run(office, batch)
    assert (done.status, done.output_file_id, done.request_counts.total) == ("cancelled", None, 0)


async def test_what_has_no_time_left_is_told_so(opened: Opener) -> None:
    office = opened(batch_window=1)
    app = Gated()
    batch = begin(office, [line(f"{i}", body={"model": "m", "i": i}) for i in range(600)])
    stopped = asyncio.Event()
    working = asyncio.create_task(Worker(room(office, app), office.database).run(stopped))
    done = await until(office, batch, lambda now: now.status not in ACTIVE)
    stopped.set()
    await working
    right, wrong = output(office, done)
    assert (done.status, right) == ("expired", [])
    assert [one["custom_id"] for one in wrong] == [f"{i}" for i in range(600)]
    assert {(one["error"]["code"], one["response"]) for one in wrong} == {("batch_expired", None)}
    assert (done.request_counts.failed, done.expired_at is not None) == (600, True)


async def test_what_is_stopped_is_gone_on_with(office: Office) -> None:
    app = Gated()
    batch = begin(office, [line(f"{i}", body={"model": "m", "i": i}) for i in range(20)])
    stopped = asyncio.Event()
    working = asyncio.create_task(Worker(room(office, app), office.database).run(stopped))
    await app.full.wait()
    stopped.set()
    await working
    assert sum(app.seen.values()) == 4
    (done,) = await run(office, batch)
    assert len(output(office, done)[0]) == 20


async def test_batches_take_turns(office: Office) -> None:
    """One that came later does not wait for all of an earlier one."""
    app = Gated()
    long = begin(office, [line(f"{i}", body={"model": "m", "i": i}) for i in range(400)])
    short = begin(office, [line(f"{i}", body={"model": "n", "i": i}) for i in range(3)])
    stopped = asyncio.Event()
    working = asyncio.create_task(Worker(room(office, app), office.database).run(stopped))
    for batch in (long, short):
        await until(office, batch, lambda now: now.status == "in_progress")
    app.permit(403)
    for batch in (short, long):
        await until(office, batch, lambda now: now.status == "completed")
    stopped.set()
    await working
    order = ['"n"' in body for body in app.seen]
    assert len(order) == 403
    assert True not in order[-40:]


async def test_answers_that_pass_are_asked_for_again(office: Office) -> None:
    """A full queue, a model that is away: the line is none the worse for it."""
    codes = iter(
        [(429, "queue_full"), (503, "model_not_ready"), (404, "model_not_found"), (500, "engine_failed")]
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status, code = next(codes, (200, None))
        body = json.dumps({"error": {"code": code}} if code else {}).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    (done,) = await run(office, begin(office, [line("a")]), app=app)
    right, wrong = output(office, done)
    assert (len(right), wrong) == (1, [])


async def test_an_app_that_fails_is_an_answer(office: Office) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    (done,) = await run(office, begin(office, [line("a")]), app=app)
    right, wrong = output(office, done)
    assert right == []
    assert wrong[0]["response"]["status_code"] == 500
    assert wrong[0]["response"]["body"]["error"]["code"] == "internal_error"


async def test_a_database_that_is_away_for_a_while(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.01)
    batch = begin(office, [line(f"{i}") for i in range(30)])
    real, fails = Database.writing, iter([True, False, True, True, False, True])

    def writing(database: Database) -> Any:
        if next(fails, False):
            raise Unavailable("The database is away.")
        return real(database)

    monkeypatch.setattr(Database, "writing", writing)
    (done,) = await run(office, batch)
    assert len(output(office, done)[0]) == 30


async def test_a_database_that_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was being said to it: every line has one answer."""
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.01)
    with Postgres() as server:
        config = AppConfig(files_dir=tmp_path, database_url=server.database())
        prepare(config)
        office = open_office(config, tmp_path)
        app = Gated()
        batch = begin(office, [line(f"{i}", body={"model": "m", "i": i}) for i in range(100)])
        stopped = asyncio.Event()
        working = asyncio.create_task(Worker(room(office, app), office.database).run(stopped))
        for count in (20, 40, 60):
            app.permit(20)
            await until(office, batch, lambda now, least=count: now.request_counts.completed >= least)  # type: ignore[misc]
            app.permit(5)  # these are perhaps about to be recorded
            await asyncio.to_thread(server.restart)
        app.permit(200)
        done = None
        while done is None:
            with contextlib.suppress(Unavailable):
                done = await until(office, batch, lambda now: now.status == "completed")
        stopped.set()
        await working
        assert [one["custom_id"] for one in output(office, done)[0]] == [f"{i}" for i in range(100)]
        office.database.close()


async def test_an_input_that_somebody_took_away(office: Office) -> None:
    batch = begin(office, [line("a")])
    office.contents.path(batch.input_file_id).unlink()
    (done,) = await run(office, batch)
    assert done.status == "failed"
    assert done.errors is not None
    assert [error.code for error in done.errors.data] == ["input_file_missing"]


def test_what_a_batch_reads_is_not_deleted(office: Office) -> None:
    batch = begin(office, [line("a")])
    with pytest.raises(InvalidRequest, match="is the input of batch_"):
        office.files.remove(batch.input_file_id, "")
    with office.database.writing() as tx:
        tx.execute(sa.text("UPDATE basert_files SET expires_at = 1"))
    assert office.files.sweep() == 0
    with office.database.writing() as tx:
        tx.execute(sa.text("UPDATE basert_batches SET status = 'completed'"))
    assert office.files.sweep() == 1


def test_what_a_batch_is_made_of(office: Office) -> None:
    request = BatchRequest(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(NotFound, match="No such file: 'file-x'"):
        office.batches.create(request, "")
    request.input_file_id = put(office, owner="other").id
    with pytest.raises(NotFound):
        office.batches.create(request, "mine")
    request.input_file_id = put(office, purpose="vision").id
    with pytest.raises(InvalidRequest, match="upload it with 'purpose': 'batch'"):
        office.batches.create(request, "")


def test_metadata_and_lists(office: Office) -> None:
    request = BatchRequest(
        input_file_id=put(office).id, endpoint=CHAT, completion_window="24h", metadata={"a\0": "Grüße\0"}
    )
    made = [office.batches.create(request, "") for _ in range(3)]
    assert made[0].metadata == {"a\0": "Grüße\0"}
    page = office.batches.page(Query("", 2))
    assert ([one.id for one in page.data], page.has_more) == ([made[2].id, made[1].id], True)
    page = office.batches.page(Query("", 2, after=page.last_id))
    assert ([one.id for one in page.data], page.has_more) == ([made[0].id], False)
    assert office.batches.page(Query("other", 2)).data == []


async def test_a_job_whose_batch_another_has_ends(office: Office) -> None:
    begin(office, [line("a")])
    claim = Claims(office.database, "host 1/1/1").take()
    assert claim is not None
    with office.database.writing() as tx:
        tx.execute(sa.text("UPDATE basert_batches SET token = 9"))
    with pytest.raises(ClaimLost):
        await Job(claim, room(office)).run()
