"""JSON to checked structs. Complaints about a body are made here: one sentence, and the field it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from basert.errors import InvalidRequest

T = TypeVar("T")

_KINDS = {
    "array": "an array",
    "bool": "a boolean",
    "float": "a number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
}
_AT = re.compile(r"(?P<what>.*?)(?: - at `(?:key` in `)?\$(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_BOUND = re.compile(r"Expected `([^`]*)`( .*)?")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_VALUE = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)


def parse(raw: bytes, kind: type[T], *, max_depth: int) -> T:
    """Decode and check a body. Raises InvalidRequest with `param` set wherever a field is to blame."""
    if too_deep(raw, max_depth):
        raise InvalidRequest(f"The request body is nested more than {max_depth} levels deep.")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise translated(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None


def convert(value: Any, kind: Any, where: str = "", *, texts: bool = False) -> Any:
    """Check a part of a decoded body; `where` it stands there. Raises InvalidRequest.

    texts: numbers and booleans may be written as strings, as forms have them.
    """
    try:
        return msgspec.convert(value, kind, strict=not texts)
    except msgspec.ValidationError as error:
        raise translated(str(error), where) from None
    except RecursionError:
        raise InvalidRequest(f"Invalid '{where}': it is nested too deeply.", param=where) from None


@contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Complaints made in here about one API's fields are told with another API's names."""
    try:
        yield
    except InvalidRequest as error:
        for ours, theirs in names.items():
            error.message = re.sub(rf"'{re.escape(ours)}\b", f"'{theirs}", error.message)
            error.param = error.param and re.sub(rf"^{re.escape(ours)}\b", theirs, error.param)
        raise


def too_deep(raw: bytes, limit: int) -> bool:
    """Whether brackets nest deeper than `limit`. Bodies with few brackets, nearly all, cost two counts."""
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    unescaped = raw if b"\\" not in raw else raw.replace(rb"\\", b"").replace(rb"\"", b"")
    bare = b"".join(unescaped.split(b'"')[::2])
    brackets = bare.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(limit):  # each round takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def translated(message: str, where: str = "") -> InvalidRequest:
    """What msgspec says of a value that has the wrong type; `where` that stands."""
    match = _AT.fullmatch(message)
    assert match is not None
    path = (where + (match["path"] or "")).replace("[...]", "").removeprefix(".")
    what = match["what"]
    if missing := _MISSING.fullmatch(what):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequest(f"Missing required parameter: '{path}'.", param=path)
    if not path:
        return InvalidRequest(f"The request body is wrong: {_said(what)}.")
    return InvalidRequest(f"Invalid '{path}': {_said(what)}.", param=path)


def _said(what: str) -> str:
    if match := _TYPE.fullmatch(what):
        return f"expected {_kinds(match[1])}, got {_kinds(match[2])}"
    if match := _BOUND.fullmatch(what):
        return f"expected {_kinds(match[1])}{match[2] or ''}"
    if match := _VALUE.fullmatch(what):
        return f"{match[1]} is not supported"
    return what[:1].lower() + what[1:]


def _kinds(types: str) -> str:
    """`float | null` as `a number`: null is as good as absent, so nobody is told to send it."""
    kinds = [kind for kind in types.split(" | ") if kind != "null"] or ["null"]
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds)


def given(value: Any) -> bool:
    """Whether a field that cannot be served says anything at all. An empty object does: all defaults."""
    return value is not None and value != [] and value is not False and value != ""
