"""Frames between processes: messages to bytes and back. Knows no socket.

    frame:  +----------------+---------------------------------------------+
            | length, u32 BE | msgpack array of tagged messages (messages) |
            +----------------+---------------------------------------------+

One frame carries everything a step has for one connection. A frame over MAX_FRAME, or one that does
not decode, is the end of its connection: the peer is broken, and nothing after it could be trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeVar, cast

import msgspec

from basert.messages import AnyMessage, Message

MAX_FRAME = 64 << 20
_HEADER = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


Value = TypeVar("Value")


class TransportError(Exception):
    """The peer broke the framing."""


def pack(messages: Iterable[Message]) -> bytes:
    body = _encoder.encode(list(messages))
    return _HEADER.pack(len(body)) + body


def packed(value: Value) -> Value:
    """A part of a message as it goes over the wire, for messages so long that packing them takes time: all of
    them can be prepared elsewhere. Nothing but `pack` can read it."""
    return cast(Value, msgspec.Raw(_encoder.encode(value)))


class Unpacker:
    """Bytes in, messages out, wherever the stream was cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def halfway(self) -> bool:
        """Whether of a frame only a part has come."""
        return len(self._buffer) > 0

    def feed(self, data: bytes) -> list[AnyMessage]:
        """Raises TransportError on a frame that is too long or does not decode."""
        self._buffer += data
        out: list[AnyMessage] = []
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise TransportError(f"a frame of {length} bytes; the most is {MAX_FRAME}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            try:
                out += _decoder.decode(bytes(self._buffer[_HEADER.size : end]))
            except msgspec.MsgspecError as error:
                raise TransportError(f"a frame that does not decode: {error}") from None
            del self._buffer[:end]
        return out
