"""Sockets between processes, as asyncio streams: the end that HTTP workers and the supervisor hold."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from basert.frames import TransportError, Unpacker, pack
from basert.messages import AnyMessage, Message


class Connection:
    """One connection to another process: frames in, frames out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unpacker = Unpacker()

    @classmethod
    async def open(cls, path: str | Path) -> Connection:
        """Raises OSError when nothing listens there."""
        return cls(*await asyncio.open_unix_connection(str(path)))

    @property
    def peer_pid(self) -> int:
        """The process that connected, as the kernel knows it."""
        sock = self._writer.get_extra_info("socket")
        pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid

    async def receive(self) -> list[AnyMessage]:
        """What has come; an empty list means that the peer is gone (or broke the framing)."""
        while True:
            try:
                data = await self._reader.read(1 << 18)
                messages = self._unpacker.feed(data)
            except (OSError, TransportError):
                return []
            if messages or not data:
                return messages

    def send(self, *messages: Message) -> None:
        """Queue one frame; a connection that is gone swallows it (receive() reports the loss)."""
        if not self._writer.is_closing():
            self._writer.write(pack(messages))

    def close(self) -> None:
        self._writer.close()


async def serve(path: Path, handle: Callable[[Connection], Awaitable[None]]) -> asyncio.Server:
    """Listen on a Unix socket that only this user may open; each peer runs `handle` in its own task."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        try:
            await handle(connection)
        except asyncio.CancelledError:
            pass  # the event loop is ending; Python 3.11 would log this as an error
        finally:
            connection.close()

    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(accepted, str(path))
    finally:
        os.umask(mask)
