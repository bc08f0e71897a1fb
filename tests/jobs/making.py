"""Files and batches to test with, made without HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from basert.config import AppConfig
from basert.jobs.files import Label
from basert.jobs.gate import Gate
from basert.jobs.office import Office
from basert.jobs.running import Room
from basert.schema.batches import BatchObject, BatchRequest
from basert.schema.files import FileObject, Purpose

CHAT = "/v1/chat/completions"
Json = dict[str, Any]


def line(custom_id: str, **changes: Any) -> Json:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "tiny"}} | changes


def jsonl(lines: Iterable[Json]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def parsed(raw: bytes) -> list[Json]:
    return [json.loads(one) for one in raw.splitlines()]


def put(
    office: Office,
    content: bytes = b"hello",
    owner: str = "",
    purpose: Purpose = "batch",
    seconds: int | None = None,
) -> FileObject:
    draft = office.files.draft()
    try:
        draft.write(content)
        return office.files.add(draft, Label(owner, purpose, "a name", seconds))
    finally:
        draft.close()


def begin(office: Office, lines: Iterable[Json], owner: str = "") -> BatchObject:
    request = BatchRequest(
        input_file_id=put(office, jsonl(lines), owner).id, endpoint=CHAT, completion_window="24h"
    )
    return office.batches.create(request, owner)


def output(office: Office, batch: BatchObject, owner: str = "") -> tuple[list[Json], list[Json]]:
    """The lines of its output, and of its error file."""
    names = (batch.output_file_id, batch.error_file_id)
    one, other = (parsed(office.files.content(name, owner)[1].read_bytes()) if name else [] for name in names)
    return one, other


async def echo(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """An app that answers every request with itself, and 400 if that is what it says."""
    body = (await receive())["body"]
    status = 400 if b"refuse" in body else 200
    headers = [(b"x-request-id", b"req_1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def room(office: Office, app: Any = echo, **settings: Any) -> Room:
    """Of a process whose models take four lines at once."""
    gate = Gate(lambda: None, 4, 1000)
    config = AppConfig(**settings)
    return Room(office.database, office.contents, office.files, config, app, lambda _: gate, lambda *_: None)
