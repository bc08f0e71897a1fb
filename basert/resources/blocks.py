"""Answers as blocks: a thought, a text or a call each, that begin, go on and end. Knows no wire form.

What OpenAI's Responses and Anthropic's Messages have in common. The plain answer is what a stream of a single
piece leaves, so that both say the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from basert.errors import BasertError
from basert.http import media
from basert.resources.responding import Answer
from basert.schema.generation import Usage
from basert.text.parts import CallArguments, CallStart, Part
from basert.text.streaming import Piece


class BlockWriter(ABC):
    """A writer for requests with one answer."""

    def __init__(self) -> None:
        self.open: Part | None = None  # what the open block began with
        self.finish: str | None = None
        self.stop: str | int | None = None  # what ended the answer, as Piece has it
        self._begun = False

    def chunks(self, piece: Piece) -> Iterator[Any]:
        if not self._begun:
            self._begun = True
            yield from self.begun(piece)
        for part in piece.parts:
            yield from self._say(part)
        if piece.finish:
            self.finish, self.stop = piece.finish, piece.stop
            yield from self._close(whole=piece.finish == "stop")
            yield from self.finished()

    def _say(self, part: Part) -> Iterator[Any]:
        if not self._goes_on(part):
            yield from self._close(whole=True)
            self.open = part
            yield from self.opened(part)
        if not isinstance(part, CallStart):
            yield from self.added(part.text)

    def _goes_on(self, part: Part) -> bool:
        if isinstance(part, CallArguments):
            return isinstance(self.open, CallStart)
        return type(part) is type(self.open) and not isinstance(part, CallStart)

    def _close(self, *, whole: bool) -> Iterator[Any]:
        if self.open is not None:
            yield from self.closed(whole=whole)
            self.open = None

    def ending(self, usage: Usage) -> bytes:
        return b"".join(map(media.event, self.last_events(usage)))

    def failure(self, error: BasertError) -> bytes:
        return b"".join(map(media.event, self.failed(error)))

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Any:
        answer = answers[0]
        piece = Piece(
            index=0,
            parts=answer.parts,
            tokens=0,
            finish=answer.finish,
            stop=answer.stop,
            scored=answer.spoken,
        )
        for _ in self.chunks(piece):
            pass
        return self.answer(usage)

    @abstractmethod
    def begun(self, piece: Piece) -> Iterable[Any]:
        """The stream's first events. piece: the first one."""

    @abstractmethod
    def opened(self, part: Part) -> Iterable[Any]:
        """A block begins; its text comes next, by `added`."""

    @abstractmethod
    def added(self, text: str) -> Iterable[Any]:
        """More text of the open block: a call's arguments, if it is a call."""

    @abstractmethod
    def closed(self, *, whole: bool) -> Iterable[Any]:
        """The open block ends. whole: it was not cut off."""

    def finished(self) -> Iterable[Any]:
        """The last block has ended."""
        return ()

    @abstractmethod
    def last_events(self, usage: Usage) -> Iterable[Any]: ...

    @abstractmethod
    def failed(self, error: BasertError) -> Iterable[Any]:
        """A failed stream's last events."""

    @abstractmethod
    def answer(self, usage: Usage) -> Any:
        """The plain answer, after all pieces."""
