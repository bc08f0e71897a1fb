"""JSON as it streams: where one value ends, and a call written as {"name": …, "arguments": …}."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from basert.text.source import SPACE, Malformed, Reading, Source

ARGUMENTS = ("arguments", "parameters")
_OTHERS = ("id", "type")  # keys that a call may have besides
_CLOSING = {"{": "}", "[": "]"}


class JsonScanner:
    """Finds where one JSON value ends, or goes wrong: brackets that do not match, or nothing at all."""

    def __init__(self) -> None:
        self.done = False
        self.wrong = False
        self._open: list[str] = []  # what closes the brackets that are open
        self._in_string = False
        self._escaped = False
        self._scalar = False

    def scan(self, text: str, at: int) -> int:
        """How far the value goes in text[at:], which continues what was scanned before."""
        while at < len(text) and not self.done and not self.wrong:
            at += self._step(text[at])
        return at

    def _step(self, char: str) -> int:
        """Length of this character's part in the value: 0 when the value ends or goes wrong before it."""
        if self._in_string:
            self._step_string(char)
        elif char == '"' and not self._scalar:
            self._in_string = True
        elif char in _CLOSING and not self._scalar:
            self._open.append(_CLOSING[char])
        elif self._open:
            return self._close(char) if char in "}]" else 1
        elif char in SPACE or char in ',:}]{["':
            self.done, self.wrong = self._scalar, not self._scalar
            return 0
        else:
            self._scalar = True
        return 1

    def _step_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            self.done = not self._open

    def _close(self, char: str) -> int:
        self.wrong = self._open.pop() != char
        self.done = not self._open and not self.wrong
        return 0 if self.wrong else 1


def json_call(source: Source, known: Collection[str] | None = None) -> Reading[None]:
    """One call; its keys may come in any order, others are skipped. known: the names that make it one, and
    without other keys than calls have, so that another object is soon told from a call."""
    yield from source.expect("{")
    named, said, held = False, False, ""
    while True:
        key = yield from _key(source)
        if key == "name" and not named:
            name = yield from _string(source)
            if known is not None and name not in known:
                raise Malformed
            named = True
            yield source.start(name)
            if held:
                yield source.arguments(held)
        elif key in ARGUMENTS and not said:
            said = True
            held = yield from json_arguments(source, held=not named)
        elif known is None or key in _OTHERS:
            yield from _whole(source)
        else:
            raise Malformed
        yield from source.skip()
        if (yield from source.expect(",", "}")) == "}":
            break
    if not named:
        raise Malformed
    if not said:
        yield source.arguments("{}")


def json_calls(source: Source) -> Reading[None]:
    """A list of them."""
    yield from source.expect("[")
    while True:
        yield from source.skip()
        yield from json_call(source)
        yield from source.skip()
        if (yield from source.expect(",", "]")) == "]":
            return


def json_arguments(source: Source, *, held: bool = False) -> Reading[str]:
    """An object that is said as it comes, or, if held, answered. One written as a string is unwrapped."""
    yield from source.skip()
    opening = yield from source.peek()
    if opening not in ("{", '"'):
        raise Malformed
    if opening == "{" and not held:
        yield from _streamed(source)
        return ""
    text = yield from _whole(source)
    if opening == '"':
        text = _loads(text)
        if not isinstance(_loads(text), dict):
            raise Malformed
    if held:
        return text
    yield source.arguments(text)
    return ""


def _key(source: Source) -> Reading[str]:
    yield from source.skip()
    key = yield from _string(source)
    yield from source.skip()
    yield from source.expect(":")
    return key


def _string(source: Source) -> Reading[str]:
    yield from source.skip()
    value = _loads((yield from _whole(source)))
    if not isinstance(value, str):
        raise Malformed
    return value


def _streamed(source: Source) -> Reading[None]:
    scanner = JsonScanner()
    while True:
        end = scanner.scan(source.text, source.at)
        if end > source.at:
            said, source.at = source.text[source.at : end], end
            yield source.arguments(said)
        if scanner.done:
            return
        if scanner.wrong or not (yield from source.more()):
            raise Malformed


def _whole(source: Source) -> Reading[str]:
    yield from source.skip()
    scanner, length = JsonScanner(), 0
    while True:
        length = scanner.scan(source.text, source.at + length) - source.at
        if scanner.done:
            source.at += length
            return source.text[source.at - length : source.at]
        if scanner.wrong or not (yield from source.more()):
            raise Malformed


def _loads(text: str) -> Any:
    try:
        return json.loads(text, strict=False)  # models write newlines into strings as they are
    except (ValueError, RecursionError):
        raise Malformed from None
