"""From pieces to an answer: streamed as events, or folded into one body. Both take the same pieces.

A Writer knows one endpoint's wire form; this knows none.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from falcon.asgi import Response

from basert.config import AppConfig
from basert.errors import BasertError
from basert.http import media
from basert.messages import TokenLogprob
from basert.resources.generating import Pieces, Run
from basert.resources.service import Service
from basert.schema.generation import Usage
from basert.text.parts import CallArguments, CallStart, Part, Text, Thought, text_of
from basert.text.streaming import Piece, Scored

Item = TypeVar("Item")


class Call(NamedTuple):
    """A tool call: the function's name and its arguments, JSON as the model wrote it."""

    name: str
    arguments: str


@dataclass
class Answer:
    """All pieces of one choice, folded."""

    parts: list[Part] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    spoken: list[Scored] = field(default_factory=list)  # of these, those of text
    prompt_scored: Sequence[TokenLogprob] = ()
    ids: list[int] = field(default_factory=list)
    finish: Any = None
    stop: str | int | None = None

    def add(self, piece: Piece) -> None:
        if piece.scored and speaks(piece, self.parts[-1] if self.parts else None):
            self.spoken += piece.scored
        self.parts += piece.parts
        self.scored += piece.scored
        self.prompt_scored = self.prompt_scored or piece.prompt_scored
        self.ids += piece.ids
        self.finish, self.stop = piece.finish, piece.stop

    @property
    def text(self) -> str:
        return text_of(self.parts)

    @property
    def thoughts(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Thought))

    @property
    def calls(self) -> list[Call]:
        """Tool calls, whole."""
        starts = [part for part in self.parts if isinstance(part, CallStart)]
        return [Call(start.name, self._arguments(start.index)) for start in starts]

    def _arguments(self, index: int) -> str:
        parts = (part for part in self.parts if isinstance(part, CallArguments))
        return "".join(part.text for part in parts if part.index == index)


def speaks(piece: Piece, before: Part | None) -> bool:
    """Whether a piece says something to the user, or goes on with it. before: the last part until then."""
    parts: Sequence[Part | None] = piece.parts or [before]
    return any(isinstance(part, Text) for part in parts)


class Writer(Protocol):
    """One endpoint's wire form."""

    def chunks(self, piece: Piece) -> Iterable[Any]:
        """What a stream says of a piece; nothing while its text is held back."""

    def ending(self, usage: Usage) -> bytes:
        """A stream's last events."""

    def failure(self, error: BasertError) -> bytes:
        """The last events of a stream that fails."""

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Any:
        """The plain answer."""


class ChunkWriter(ABC):
    """A writer whose streams are chunks of one form, of which the last may tell the usage."""

    @abstractmethod
    def chunks(self, piece: Piece) -> Iterable[Any]:
        """See Writer."""

    @abstractmethod
    def usage_chunk(self, usage: Usage) -> Any | None:
        """The last chunk, if it was asked for."""

    @abstractmethod
    def whole(self, answers: Sequence[Answer], usage: Usage) -> Any:
        """See Writer."""

    def ending(self, usage: Usage) -> bytes:
        chunk = self.usage_chunk(usage)
        return (b"" if chunk is None else media.event(chunk)) + media.DONE

    def failure(self, error: BasertError) -> bytes:
        return media.event(error.wire())


class Body:
    """A stream's body as Falcon wants it: closed with close(), where generators know only aclose().

    A client that leaves a chunk unread for `patience` seconds is taken for gone: its task is cancelled.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], patience: float) -> None:
        self._chunks = chunks
        self._patience = patience
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._handed_over: float | None = None  # when the chunk that is being sent was
        self._timer = self._loop.call_later(patience, self._watch)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._handed_over = None
        chunk = await anext(self._chunks)
        self._handed_over = self._loop.time()
        return chunk

    async def close(self) -> None:
        self._timer.cancel()
        await self._chunks.aclose()

    def _watch(self) -> None:
        now = self._loop.time()
        left = self._patience - (now - (self._handed_over or now))
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch)
        elif self._task is not None:
            self._task.cancel()


class Counting(ChunkWriter):
    """A writer whose chunks all tell the usage so far."""

    def __init__(self, writer: ChunkWriter, run: Run) -> None:
        self._run = run
        self._writer = writer

    def chunks(self, piece: Piece) -> Iterable[Any]:
        for chunk in self._writer.chunks(piece):
            chunk.usage = self._run.usage()
            yield chunk

    def usage_chunk(self, usage: Usage) -> Any | None:
        return self._writer.usage_chunk(usage)

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Any:
        return self._writer.whole(answers, usage)


async def respond(resp: Response, run: Run, writer: Writer, service: Service, *, stream: bool) -> None:
    """Answer a request, either way. Raises what Run.pieces raises, as long as no answer has begun.

    A stream begins (and its status is 200) with the engine's first step, so that a full queue is still a 429;
    or, if a prompt waits longer than the keep-alive interval, with a keep-alive. Later failures are events.
    """
    pieces = run.pieces()
    if not stream:
        answers = await _folded(pieces, run)
        media.send_json(resp, writer.whole(answers, run.usage()))
        return
    await send_events(
        resp,
        pieces,
        service.config,
        said=writer.chunks,
        ending=lambda: writer.ending(run.usage()),
        failure=writer.failure,
    )


async def send_events(
    resp: Response,
    batches: AsyncGenerator[list[Item], None],
    config: AppConfig,
    *,
    said: Callable[[Item], Iterable[Any]],
    ending: Callable[[], bytes],
    failure: Callable[[BasertError], bytes],
) -> None:
    """Answer with a stream of what is `said` of each item. Raises what the first batch raises; see respond.

    An empty batch means that nothing came for a while. ending, failure: its last events.
    """
    first = await anext(batches, None)
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_headers(media.STREAM_HEADERS)
    events = _events(first, batches, config.keep_alive_interval, said, ending, failure)
    resp.stream = Body(events, config.stall_timeout)


async def _folded(pieces: Pieces, run: Run) -> list[Answer]:
    answers = [Answer() for _ in range(len(run.plan.prompts) * run.plan.n)]
    async with aclosing(pieces):
        async for batch in pieces:
            for piece in batch:
                answers[piece.index].add(piece)
    return answers


async def _events(
    first: list[Item] | None,
    rest: AsyncGenerator[list[Item], None],
    interval: float,
    said: Callable[[Item], Iterable[Any]],
    ending: Callable[[], bytes],
    failure: Callable[[BasertError], bytes],
) -> AsyncGenerator[bytes, None]:
    """The body of a stream: every batch is one write."""
    clock = asyncio.get_running_loop().time
    async with aclosing(rest):
        try:
            batch = first
            last = clock()
            while batch is not None:
                told = b"".join(media.event(event) for item in batch for event in said(item))
                if told or clock() - last >= interval or not batch:
                    last = clock()
                    yield told or media.KEEP_ALIVE
                batch = await anext(rest, None)
            yield ending()
        except Exception as error:
            yield failure(media.as_basert_error(error))
