"""/v1/files: what clients leave here, to be read by batches or by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import IO, TYPE_CHECKING

from falcon import HTTPInvalidHeader
from falcon.asgi import Request, Response

from basert.errors import NotFound, RangeNotSatisfiable
from basert.http import media
from basert.http.openapi import operation
from basert.http.uploads import ALLOWANCE, read_form
from basert.resources.paging import query_of
from basert.resources.responding import Body
from basert.resources.service import Service
from basert.schema.files import MOST_FILES, DeletedFile, FileList, FileObject, UploadRequest
from basert.schema.forms import from_form
from basert.schema.parsing import convert

if TYPE_CHECKING:
    from basert.jobs.office import Office

CHUNK = 1 << 18  # bytes


class FilesResource:
    """office: None when this server keeps no files."""

    def __init__(self, service: Service, office: Office | None) -> None:
        self._service = service
        self._office = office

    @property
    def office(self) -> Office:
        return opened(self._office)


class FileCollection(FilesResource):
    @operation("Upload a file.", UploadRequest, FileObject, form="multipart/form-data")
    async def on_post(self, req: Request, resp: Response) -> None:
        from basert.jobs.files import Label

        office, owner, config = self.office, req.context.owner, self._service.config
        await office.database.run(
            office.files.check_room, owner, max(0, (req.content_length or 0) - ALLOWANCE)
        )
        draft = office.files.draft()
        try:
            async with read_form(req, config, most=config.files_max_bytes, into=draft) as form:
                request = convert(from_form(form.fields, form.filename), UploadRequest, texts=True)
                request.check()
            expiry = request.expires_after
            label = Label(owner, request.purpose, request.file, None if expiry is None else expiry.seconds)
            told = await office.database.run(office.files.add, draft, label)
        finally:
            draft.close()
        media.send_json(resp, told)

    @operation("The files of this key.", None, FileList)
    async def on_get(self, req: Request, resp: Response) -> None:
        office = self.office
        query = query_of(req, MOST_FILES, MOST_FILES)
        media.send_json(resp, await office.database.run(office.files.page, query))


class FileItem(FilesResource):
    @operation("What is told of a file.", None, FileObject)
    async def on_get(self, req: Request, resp: Response, file: str) -> None:
        office = self.office
        media.send_json(resp, await office.database.run(office.files.get, file, req.context.owner))

    @operation("Delete a file.", None, DeletedFile)
    async def on_delete(self, req: Request, resp: Response, file: str) -> None:
        office = self.office
        await office.database.run(office.files.remove, file, req.context.owner)
        media.send_json(resp, DeletedFile(file))


class FileContent(FilesResource):
    @operation("The bytes of a file, or a range of them.", None, bytes)
    async def on_get(self, req: Request, resp: Response, file: str) -> None:
        office = self.office
        told, path = await office.database.run(office.files.content, file, req.context.owner)
        resp.content_type = "application/octet-stream"
        resp.set_header("Accept-Ranges", "bytes")
        resp.etag = told.id  # what is in a file never changes
        begin, end = _range(req, resp, told)
        content = await asyncio.to_thread(path.open, "rb")
        chunks = _read(content, begin, end)
        resp.set_stream(Body(chunks, self._service.config.stall_timeout), end - begin)


def opened(office: Office | None) -> Office:
    """Raises NotFound for a server that keeps no files."""
    if office is None:
        raise NotFound("This server keeps no files and runs no batches; start it with --files-dir.")
    return office


def _range(req: Request, resp: Response, file: FileObject) -> tuple[int, int]:
    """Which bytes are wanted, and the answer's status. Raises RangeNotSatisfiable.

    What is no range of bytes, or several, is answered with all, as RFC 9110 allows.
    """
    size = file.bytes
    try:
        wanted = req.range if req.range_unit == "bytes" else None
    except HTTPInvalidHeader:
        wanted = None
    if wanted is None or (req.get_header("If-Range") or f'"{file.id}"') != f'"{file.id}"':
        return 0, size
    first, last = wanted
    begin = max(0, size + first) if first < 0 else first
    end = size if first < 0 or last < 0 else min(last + 1, size)
    if begin >= end:
        resp.set_header("Content-Range", f"bytes */{size}")
        raise RangeNotSatisfiable(f"The file has {size} bytes; ask for some of these.")
    resp.status = 206
    resp.content_range = (begin, end - 1, size)
    return begin, end


async def _read(content: IO[bytes], begin: int, end: int) -> AsyncGenerator[bytes, None]:
    with content:
        content.seek(begin)
        while begin < end and (chunk := await asyncio.to_thread(content.read, min(CHUNK, end - begin))):
            begin += len(chunk)
            yield chunk
