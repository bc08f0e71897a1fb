"""Answers that are long lists: written and sent a slice at a time, so that streams beside them go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import falcon
import msgspec
from falcon.asgi import Response

from basert.resources.responding import Body

WHOLE = 1 << 17  # bytes that are sent in one piece


def around(answer: Any, field: str) -> tuple[bytes, bytes]:
    """What comes before and after the items of a struct's list that is empty yet: the first of this name."""
    before, hole, after = msgspec.json.encode(answer).partition(f'"{field}":[]'.encode())
    assert hole, f"there is no empty list {field!r}"
    return before + hole[:-1], b"]" + after


async def send_rows(
    resp: Response, slices: Iterable[list[bytes]], frame: tuple[bytes, bytes], patience: float
) -> None:
    """A JSON list of items already written, within `frame`. Others have their turn after each slice.

    patience: seconds that a client may leave a part of it unread.
    """
    before, after = frame
    chunks: list[bytes] = []
    for items in slices:
        chunks.append((b"," if chunks else before) + b",".join(items))
        await asyncio.sleep(0)
    chunks.append((b"" if chunks else before) + after)
    resp.content_type = falcon.MEDIA_JSON
    size = sum(map(len, chunks))
    if size <= WHOLE:
        resp.data = b"".join(chunks)
    else:
        resp.set_stream(Body(_turns(chunks), patience), size)


async def _turns(chunks: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)
