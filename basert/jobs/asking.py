"""One line of a batch to its answer: asked until the answer is its own. Knows the app, no record.

A full queue, a model that loads or an engine that died say nothing about a line: it is asked again, for as
long as its batch has time. Only a line under which engines die when it runs alone is answered with that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from basert.errors import EngineFailed
from basert.http import inside
from basert.http.media import as_basert_error
from basert.jobs.gate import Gate
from basert.schema.batches import InputLine

FIRST_PAUSE = 0.1  # seconds; then doubled
LONGEST_PAUSE = 10.0
LONE_DEATHS = 2  # after which a line is what kills engines
# It was there when the batch was looked at: it is only away.
_PASSING = frozenset({"model_not_found"})
_PASSING_STATUS = frozenset({429, 503})

_log = logging.getLogger(__name__)


class _Detail(msgspec.Struct):
    code: str | None = None


class _Failure(msgspec.Struct):
    error: _Detail


async def answered(
    app: inside.App, read: Callable[[], InputLine], owner: str, gate: Gate
) -> tuple[InputLine, inside.Answer]:
    """A line and what its endpoint answers, whatever the status. read: called when it is the line's turn."""
    deaths = 0
    while True:
        async with gate.open(suspect=deaths > 0):
            line = read()
            answer, code = await _settled(app, line, owner)
            if code != EngineFailed.default_code or deaths == LONE_DEATHS:
                return line, answer
            deaths += 1
            gate.note_death()


async def _settled(app: inside.App, line: InputLine, owner: str) -> tuple[inside.Answer, str | None]:
    """The first answer that will not pass, and its error's code."""
    pause = FIRST_PAUSE
    while True:
        answer = await _asked(app, line, owner)
        code = _code(answer)
        if answer.status not in _PASSING_STATUS and code not in _PASSING:
            return answer, code
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)


async def _asked(app: inside.App, line: InputLine, owner: str) -> inside.Answer:
    try:
        return await inside.ask(app, line.url, bytes(line.body), owner)
    except Exception as error:  # after its answer had begun
        told = as_basert_error(error)
        return inside.Answer(told.status, {}, msgspec.json.encode(told.wire()))


def _code(answer: inside.Answer) -> str | None:
    if answer.status < 400:
        return None
    try:
        return msgspec.json.decode(answer.body, type=_Failure).error.code
    except msgspec.MsgspecError:
        return None
