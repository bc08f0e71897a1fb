"""Text that comes in pieces, read by a script: a generator that takes what it wants and waits for more.

A script yields parts, and None to wait. It looks at characters, never at pieces: how the text was cut makes
no difference to what it says. Knows no format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from basert.text.parts import CallArguments, CallStart, Part
from basert.text.stops import tail

T = TypeVar("T")
Reading = Generator[Part | None, None, T]
Say = Callable[[str], Part]

SPACE = " \t\r\n"
LONGEST_WORD = 1000  # characters: a name or number longer than that is none


class Malformed(Exception):
    """What follows is not what the format says, or the text ended in the middle of it."""


class Source:
    """The text from `at` on is unread; `ended` says that no more comes."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self.thinking = False  # what comes next is a thought
        self.kept = False  # what was read may be read again: see `keep`
        self.calls = 0  # that were begun
        self.starved = False  # more was wanted than came

    def feed(self, text: str) -> None:
        """Positions change with this, unless the text read is kept."""
        if not self.kept:
            self.text, self.at = self.text[self.at :], 0
        self.text += text

    def keep(self) -> int:
        """A position to go back to, until a call begins."""
        self.kept = True
        return self.at

    def start(self, name: str) -> CallStart:
        """The part that begins the next call."""
        self.kept = False
        self.calls += 1
        return CallStart(self.calls - 1, name)

    def arguments(self, text: str) -> CallArguments:
        """The part that continues the call begun last."""
        return CallArguments(self.calls - 1, text)

    def more(self) -> Reading[bool]:
        """Wait for more text; False if none comes."""
        unread = len(self.text) - self.at
        while len(self.text) - self.at == unread and not self.ended:
            yield None
        came = len(self.text) - self.at > unread
        self.starved |= not came
        return came

    def peek(self, length: int = 1) -> Reading[str]:
        """The next characters, fewer only at the end."""
        while len(self.text) - self.at < length and (yield from self.more()):
            pass
        return self.text[self.at : self.at + length]

    def take(self, *choices: str) -> Reading[str]:
        """Read whichever of these texts comes next (none begins another), or nothing and answer ""."""
        while True:
            unread = self.text[self.at : self.at + max(map(len, choices))]
            for choice in choices:
                if unread.startswith(choice):
                    self.at += len(choice)
                    return choice
            possible = any(choice.startswith(unread) for choice in choices)
            if not (possible and (yield from self.more())):
                return ""

    def expect(self, *choices: str) -> Reading[str]:
        """Read one of these texts. Raises Malformed if none comes next."""
        found = yield from self.take(*choices)
        if not found:
            raise Malformed
        return found

    def close(self, end: str) -> Reading[None]:
        """Read this text if it comes next, or as much of it as there is before the end."""
        if not (yield from self.take(end)) and self.ended and end.startswith(self.text[self.at :]):
            self.at = len(self.text)

    def skip(self, characters: str = SPACE) -> Reading[None]:
        """Read past all of these characters."""
        while True:
            unread = self.text[self.at :]
            self.at += len(unread) - len(unread.lstrip(characters))
            if self.at < len(self.text) or not (yield from self.more()):
                return

    def word(self, pattern: re.Pattern[str]) -> Reading[str]:
        """Read the longest text of which every beginning matches. Raises Malformed if it is empty or the text
        ends with it: there might have been more."""
        while True:
            match = pattern.match(self.text, self.at)
            end = match.end() if match else self.at
            if end < len(self.text) or end - self.at > LONGEST_WORD:
                break
            if not (yield from self.more()):
                raise Malformed
        if not 0 < end - self.at <= LONGEST_WORD:
            raise Malformed
        word, self.at = self.text[self.at : end], end
        return word

    def until(self, ends: Sequence[str], say: Say) -> Reading[str]:
        """Say all that comes before the first of these texts, which is read and answered; "" at the end."""
        while True:
            at, end = self.first(ends, ended=self.ended)
            if at > self.at:
                said, self.at = self.text[self.at : at], at
                yield say(said)
            if end or self.ended:
                self.at += len(end)
                return end
            yield from self.more()

    def inside(self, ends: Sequence[str], say: Say) -> Reading[str]:
        """As `until`, of what has to have an end. Raises Malformed if it has none; what may have begun one is
        not said then."""
        while True:
            at, end = self.first(ends, ended=False)
            if at > self.at:
                said, self.at = self.text[self.at : at], at
                yield say(said)
            if end:
                self.at += len(end)
                return end
            if not (yield from self.more()):
                raise Malformed

    def whole_until(self, ends: Sequence[str]) -> Reading[str]:
        """All that comes before the first of these texts, which is read too. Raises Malformed at the end."""
        while True:
            at, end = self.first(ends, ended=False)
            if end:
                read, self.at = self.text[self.at : at], at + len(end)
                return read
            if not (yield from self.more()):
                raise Malformed

    def first(self, ends: Sequence[str], *, ended: bool) -> tuple[int, str]:
        """Where the first of these texts is, and which; else as far as none of them may begin, and "".
        ended: none begins at the end."""
        found = [(at, -len(end), end) for end in ends if (at := self.text.find(end, self.at)) >= 0]
        if found:
            at, _, end = min(found)
            return at, end
        if ended:
            return len(self.text), ""
        unread = self.text[self.at :]
        return self.at + min((tail(unread, end) for end in ends), default=len(unread)), ""


Script = Callable[[Source], Reading[None]]


class ScriptReader:
    """A Reader (see basert.text.parts) that follows a script."""

    def __init__(self, script: Script) -> None:
        self._source = Source()
        self._script = script(self._source)

    @property
    def thinking(self) -> bool:
        return self._source.thinking

    def push(self, text: str) -> list[Part]:
        self._source.feed(text)
        return self._run()

    def finish(self) -> list[Part]:
        self._source.ended = True
        return self._run()

    def _run(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._script:
            if part is None:
                break
            parts.append(part)
        return parts
