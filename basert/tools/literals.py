"""Arguments that are not written in JSON, said as JSON while they stream: Python's notation and Gemma's.

Strings are said piece by piece, everything else word by word; what was said always begins a JSON object.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable

from basert.text.parts import CallArguments
from basert.text.source import Malformed, Reading, Source

NAME = re.compile(r"[\w.-]+")
_WORD = re.compile(r"[\w.+-]+")
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}
_DEEPEST = 64  # brackets in brackets

_Read = Callable[[str], Reading[None]]


def quoted(text: str) -> str:
    """A part of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def word_as_json(word: str) -> str:
    """A number or True, False, None, in either notation. Raises Malformed."""
    if word in _WORDS or _JSON_NUMBER.fullmatch(word):
        return _WORDS.get(word, word)
    for number in (int, float):
        try:
            value = number(word)
        except ValueError:
            continue
        if math.isfinite(value):
            return json.dumps(value)
    raise Malformed


class Literals:
    """One notation's values. A subclass says how strings and keys are written."""

    quotes: tuple[str, ...]

    def __init__(self, source: Source) -> None:
        self._source = source
        self._depth = 0

    def members(self, close: str, sign: str) -> Reading[None]:
        """Names and values up to `close`, with `sign` between the two, as a JSON object."""
        yield from self._sequence("{", close, "}", self._member, sign)

    def value(self) -> Reading[None]:
        source = self._source
        yield from source.skip()
        opening = yield from source.take("[", "{", *self.quotes)
        if opening == "[":
            yield from self._sequence("[", "]", "]", self._item, "")
        elif opening == "{":
            yield from self._sequence("{", "}", "}", self._entry, ":")
        elif opening:
            yield source.arguments('"')
            yield from self._string(opening)
            yield source.arguments('"')
        else:
            yield source.arguments(word_as_json((yield from source.word(_WORD))))

    def _sequence(self, opening: str, close: str, closing: str, read: _Read, sign: str) -> Reading[None]:
        """What stands between brackets, with commas between; one more at the end does not count."""
        source = self._source
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Malformed
        yield source.arguments(opening)
        first = True
        while not (yield from self._ends(close, first)):
            if not first:
                yield source.arguments(",")
            yield from read(sign)
            first = False
        yield source.arguments(closing)
        self._depth -= 1

    def _ends(self, close: str, first: bool) -> Reading[bool]:
        yield from self._source.skip()
        if first:
            return bool((yield from self._source.take(close)))
        if (yield from self._source.expect(",", close)) == close:
            return True
        yield from self._source.skip()
        if not (yield from self._source.peek()):
            raise Malformed
        return bool((yield from self._source.take(close)))

    def _item(self, _: str) -> Reading[None]:
        yield from self.value()

    def _member(self, sign: str) -> Reading[None]:
        """A bare name and a value."""
        source = self._source
        name = yield from source.word(NAME)
        yield from source.skip()
        yield from source.expect(sign)
        yield source.arguments(f"{json.dumps(name, ensure_ascii=False)}:")
        yield from self.value()

    def _entry(self, sign: str) -> Reading[None]:
        """A key and a value of an object within."""
        yield from self._member(sign)

    def _string(self, quote: str) -> Reading[None]:
        yield from self._source.inside((quote,), self._quoted)

    def _quoted(self, text: str) -> CallArguments:
        return self._source.arguments(quoted(text))


class GemmaLiterals(Literals):
    """{key:<escape>text<escape>,list:[1,2]}: bare keys, strings between markers and without escapes."""

    quotes = ("<escape>",)


class PythonLiterals(Literals):
    """a=1, b="x", c={'k': True}: as Python writes them; true, false and null are understood too."""

    quotes = ('"', "'")

    def _entry(self, sign: str) -> Reading[None]:
        source = self._source
        quote = yield from source.expect(*self.quotes)
        yield source.arguments('"')
        yield from self._string(quote)
        yield source.arguments('":')
        yield from source.skip()
        yield from source.expect(sign)
        yield from self.value()

    def _string(self, quote: str) -> Reading[None]:
        while (yield from self._source.inside((quote, "\\"), self._quoted)) != quote:
            yield self._source.arguments((yield from self._escape()))

    def _escape(self) -> Reading[str]:
        """What follows a backslash, as JSON has it."""
        source = self._source
        kind = yield from source.peek()
        if not kind:
            raise Malformed
        source.at += 1
        if kind in _HEX:
            digits = yield from source.peek(_HEX[kind])
            if not re.fullmatch(rf"[0-9a-fA-F]{{{_HEX[kind]}}}", digits):
                raise Malformed
            source.at += len(digits)
            return _unicode(int(digits, 16))
        if kind in _ESCAPES:
            return quoted(_ESCAPES[kind])
        if kind in ("\\", "'", '"'):
            return quoted(kind)
        return quoted("\\" + kind)  # to Python these are two characters


def literal_as_json(text: str) -> str | None:
    """A whole value in JSON or in Python's notation, as JSON; None if it is neither."""
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text, parse_constant=_refuse)
        return text.strip()
    source = Source()
    source.feed(text.strip() + "\n")  # a number ends where something else begins
    source.ended = True
    try:
        said = [part.text for part in PythonLiterals(source).value() if isinstance(part, CallArguments)]
    except Malformed:
        return None
    return "".join(said) if source.text[source.at :] in ("", "\n") else None


def _refuse(constant: str) -> None:
    """NaN and the infinities are no JSON."""
    raise ValueError(constant)


def _unicode(point: int) -> str:
    if point < 0x10000:
        return f"\\u{point:04x}"  # perhaps half of a pair, which JSON writes as two, too
    if point > 0x10FFFF:
        raise Malformed
    return chr(point)
