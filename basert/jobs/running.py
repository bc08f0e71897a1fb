"""One batch that this process holds, from whatever state it is in to its end. Knows no other batch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from basert.config import AppConfig
from basert.errors import NotFound
from basert.http import inside
from basert.jobs.claims import Claim, held
from basert.jobs.contents import Contents, Draft
from basert.jobs.database import Database
from basert.jobs.files import Files, Label
from basert.jobs.gate import Gate
from basert.jobs.lines import Lines
from basert.jobs.records import new_name, now
from basert.jobs.results import Part, Result, forget, put_together, record, recorded, remove_parts
from basert.jobs.sending import Sending, unanswered
from basert.jobs.validate import Rules, validated
from basert.schema.batches import BatchError, BatchErrors, LineError
from basert.schema.files import BATCH_OUTPUT

AT_ONCE = 256  # lines that are told to have expired in one transaction
EXPIRED = LineError(
    "batch_expired", "This request could not be executed before the completion window expired."
)
GONE = BatchError("input_file_missing", None, "The content of the input file is gone; upload it again.", None)
ENDS = {"finalizing": "completed", "cancelling": "cancelled", "in_progress": "expired"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """What all batches of a process share."""

    database: Database
    contents: Contents
    files: Files
    config: AppConfig
    app: inside.App
    gate: Callable[[str], Gate]  # of a model, by its name
    # Raises BasertError for a model that this endpoint cannot have, or this owner may not use.
    check_model: Callable[[str, str, str], None]


class Job:
    """Run `run` as a task; cancelled, it leaves the batch to the next holder."""

    def __init__(self, claim: Claim, room: Room) -> None:
        self.claim = claim
        self._room = room
        self._cancelled = asyncio.Event()
        self._gate: Gate | None = None  # that its lines go through

    @property
    def waits(self) -> bool:
        """Whether its model is away, and others might go on meanwhile."""
        return self._gate is not None and self._gate.is_shut

    def cancel_batch(self) -> None:
        """Its client has asked for its end."""
        self._cancelled.set()

    async def run(self) -> None:
        """Raises ClaimLost, Unavailable, or groups of them."""
        batch = await self._change()
        if batch.status in ("validating", "in_progress"):
            try:
                lines = await self._do(self._read, batch)
            except (NotFound, OSError):
                await self._finish(batch, "failed", [GONE])
                return
            try:
                batch, errors = await self._validated(batch, lines)
                if errors:
                    await self._finish(batch, "failed", errors)
                    return
                if batch.status == "in_progress":
                    batch = await self._answer_lines(batch, lines)
            finally:
                lines.close()
        await self._finish(batch, ENDS[batch.status])

    def _read(self, batch: Any) -> Lines:
        return Lines(self._room.contents.path(batch.input_file_id))

    async def _validated(self, batch: Any, lines: Lines) -> tuple[Any, list[BatchError]]:
        """The batch in progress, unless its client has cancelled it or there is something wrong."""
        if batch.status != "validating":
            return batch, []
        config = self._room.config
        rules = Rules(
            batch.endpoint,
            config.batch_max_lines,
            config.max_body_bytes,
            config.max_json_depth,
            lambda model: self._room.check_model(model, batch.endpoint, batch.owner),
        )
        model, errors = await asyncio.to_thread(validated, lines, rules)
        if errors:
            return batch, errors
        begun = {"status": "in_progress", "in_progress_at": now(), "total": len(lines), "model": model}
        return await self._change("validating", **begun), []

    async def _answer_lines(self, batch: Any, lines: Lines) -> Any:
        """The batch with all its answers; or as it is when its time is over, or its client cancelled it."""
        left = await self._left(batch, lines)
        if left:
            part = await self._do(Part, self._room.contents.parts, self.claim)
            try:
                left = await self._send(batch, lines, left, part)
            finally:
                part.close()
        if left or batch.expired_at is not None:
            return await self._change()
        return await self._change("in_progress", status="finalizing", finalizing_at=now())

    async def _send(self, batch: Any, lines: Lines, places: list[int], part: Part) -> list[int]:
        """Places of those that were not run; if time was what they lacked, they are told to have expired."""

        async def keep(results: Sequence[Result]) -> None:
            await self._do(record, self._room.database, self.claim, part, results)

        self._gate = self._room.gate(batch.model)
        sending = Sending(lines, batch.owner, self._room.app, self._gate, keep)
        await sending.run(places, max(0.0, batch.expires_at - time.time()), self._cancelled)
        left = await self._left(batch, lines)
        if not left or self._cancelled.is_set():
            return left
        ending = await self._change("in_progress", expired_at=now())  # whoever goes on here, it has expired
        for start in range(0, len(left) if ending.status == "in_progress" else 0, AT_ONCE):
            some = left[start : start + AT_ONCE]
            await keep([unanswered(lines.number(place), lines.read(place), EXPIRED) for place in some])
        return left

    async def _left(self, batch: Any, lines: Lines) -> list[int]:
        """Places of those that have no answer."""
        done = await self._do(recorded, self._room.database, batch.id)
        return [place for place in range(len(lines)) if lines.number(place) not in done]

    async def _finish(self, batch: Any, end: str, errors: Sequence[BatchError] = ()) -> None:
        """Put its files together, and tell its end and theirs in one transaction."""
        drafts: dict[str, Draft] = {}
        database, contents = self._room.database, self._room.contents
        try:
            for kind, ok in (("output", True), ("error", False)):
                draft = await self._do(put_together, database, batch.id, contents, ok=ok)
                if draft is not None:
                    drafts[kind] = draft
            await self._do(self._close, batch, end, drafts, errors)
        finally:
            for draft in drafts.values():
                draft.close()
        await self._do(remove_parts, contents, batch.id)
        _log.info("batch %s is %s", batch.id, end)

    def _close(self, batch: Any, end: str, drafts: dict[str, Draft], errors: Sequence[BatchError]) -> None:
        names = {kind: new_name("file-") for kind in drafts}
        for kind, draft in drafts.items():
            draft.keep(names[kind])
        told: dict[str, Any] = {f"{kind}_file_id": name for kind, name in names.items()}
        if errors:
            told["errors"] = msgspec.json.encode(BatchErrors(list(errors))).decode()
        with self._room.database.writing() as tx:
            held(tx, self.claim)
            for kind, draft in drafts.items():
                label = Label(batch.owner, BATCH_OUTPUT, f"{batch.id}_{kind}.jsonl", batch.output_seconds)
                self._room.files.register(tx, names[kind], draft, label)
            forget(tx, batch.id)
            held(tx, self.claim, status=end, holder=None, **told, **{f"{end}_at": now()})

    async def _change(self, *before: str, **values: Any) -> Any:
        """Its record, changed if its status is one of `before`."""
        return await self._do(self._changed, before, values)

    def _changed(self, before: tuple[str, ...], values: dict[str, Any]) -> Any:
        with self._room.database.writing() as tx:
            row = held(tx, self.claim)
            return held(tx, self.claim, **values) if row.status in before else row

    async def _do(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._room.database.run(work, *args, **kwargs)
