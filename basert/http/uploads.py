"""Forms with a file (multipart/form-data), read as they come. Knows sizes and times, no field's meaning.

The file goes to an unnamed temporary one, unless it is to be kept: nothing of it is held in memory, and
nothing is left of it, however this process ends.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import falcon
from falcon.asgi import Request
from falcon.asgi.multipart import BodyPart
from falcon.media import MultipartFormHandler

from basert.config import AppConfig
from basert.errors import InvalidRequest, PayloadTooLarge, RequestTimeout

KIND = "multipart/form-data"
ALLOWANCE = 1 << 20  # bytes of a form beside its file; Falcon takes as many of one field


class Sink(Protocol):
    """Where a file may go."""

    def write(self, chunk: bytes, /) -> object: ...
    def flush(self) -> None: ...


_handler = MultipartFormHandler()


@dataclass
class Form:
    """What a form says. `path` can be read until the form is closed."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    filename: str | None = None  # of the file; None as long as there is none
    file: IO[bytes] | None = None

    @property
    def path(self) -> Path:
        assert self.file is not None
        return Path(f"/proc/self/fd/{self.file.fileno()}")


@asynccontextmanager
async def read_form(
    req: Request, config: AppConfig, file: str = "file", *, most: int, into: Sink | None = None
) -> AsyncIterator[Form]:
    """A request's form, whose field `file` is a file of at most so many bytes; `into` takes it, if given.

    The client has `body_timeout` for each MiB. Raises InvalidRequest, PayloadTooLarge, RequestTimeout.
    """
    kind = (req.content_type or "").partition(";")[0].strip().lower()
    if kind != KIND:
        raise InvalidRequest(f"The body is sent as {kind!r}; send it with Content-Type: {KIND}.")
    if (req.content_length or 0) > most + ALLOWANCE:
        raise _too_large(most)
    form = Form()
    try:
        await _read(req, form, file, config, most, into)
        yield form
    finally:
        if form.file is not None:
            form.file.close()


async def _read(req: Request, form: Form, file: str, config: AppConfig, most: int, into: Sink | None) -> None:
    try:
        async with asyncio.timeout(config.body_timeout) as timer:
            pace = _Pace(timer, config, most)
            parts: Any = await _handler.deserialize_async(req.stream, req.content_type, req.content_length)
            async for part in parts:
                await _take(part, form, file, pace, into)
    except TimeoutError:
        raise RequestTimeout(
            f"The upload stalled: each MiB of it may take {config.body_timeout:g} seconds.",
            code="body_timeout",
        ) from None
    except falcon.HTTPError as error:
        raise _malformed(req, error) from None
    except UnicodeError:
        raise InvalidRequest("The form's headers are not UTF-8; send it as RFC 7578 says.") from None


class _Pace:
    """How much has come, and how long the rest may take."""

    def __init__(self, timer: asyncio.Timeout, config: AppConfig, most: int) -> None:
        self._timer = timer
        self._patience = config.body_timeout
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._size = 0
        self._beside = 0

    def add(self, size: int) -> None:
        """Of the file. Raises PayloadTooLarge."""
        self._size += size
        if self._size > self._most:
            raise _too_large(self._most)
        seconds = self._patience * (1 + (self._size >> 20))
        self._timer.reschedule(self._began + seconds)

    def add_text(self, size: int) -> None:
        """Of another field. Raises PayloadTooLarge."""
        self._beside += size
        if self._beside > ALLOWANCE:
            raise _too_large(self._most)


async def _take(part: BodyPart, form: Form, file: str, pace: _Pace, into: Sink | None) -> None:
    name = part.name
    if name is None:
        raise InvalidRequest("A part of the form has no name; send it as RFC 7578 says.")
    if name == file:
        if form.filename is not None:
            raise InvalidRequest(f"The form has more than one '{file}'; send one at a time.", param=file)
        form.filename = part.filename or file
        if into is None:
            into = form.file = tempfile.TemporaryFile()  # noqa: SIM115
        async for chunk in part.stream:
            pace.add(len(chunk))
            into.write(chunk)
        into.flush()
        return
    raw = await part.get_data()
    pace.add_text(len(raw))
    try:
        form.fields.setdefault(name, []).append(raw.decode())
    except UnicodeDecodeError:
        raise InvalidRequest(f"Invalid '{name}': it is not UTF-8 text.", param=name) from None


def _malformed(req: Request, error: falcon.HTTPError) -> InvalidRequest:
    if req.stream.tell() < (req.content_length or 0) and req.stream.eof:
        return InvalidRequest("The request body broke off before its Content-Length.")
    why = (error.description or error.title or "it is malformed").rstrip(".")
    return InvalidRequest(f"The form cannot be read ({why}); send it as RFC 7578 says.")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The upload is larger than {most} bytes, the most taken here; compress or split it.",
        param="file",
    )
