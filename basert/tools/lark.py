"""Pieces of llguidance's Lark grammars: quoted text, text up to a marker, members that may be missing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from basert.tools.schemas import lark_json, types, variants

TEXT = r"TEXT: /(.|\n)*/"
_UNHELD = ("pattern",)  # of a string: what only JSON can be held to


class Inexpressible(Exception):
    """A string with a keyword that a notation without JSON strings cannot be held to."""


def quote(text: str) -> str:
    """An atom: this text."""
    return json.dumps(text, ensure_ascii=False)


def regex(text: str) -> str:
    """This text within a regex between slashes."""
    return re.escape(text).replace("/", "\\/")


def is_token(atom: str) -> bool:
    """Whether a marker's atom is one special token, which free text never holds."""
    return atom.startswith("<[")


def until(rule: str, end: str, text: str = "TEXT") -> str:
    """A rule: any text up to and including this marker's atom, where it comes first."""
    return f"{rule}: {text} {end}" if is_token(end) else f"{rule}[lazy]: {text} {end}"


def members(rule: str, items: Sequence[str], required: Sequence[bool], separator: str) -> str:
    """Rules: these items in their order, those that are not required with or without, separators between."""
    if not items:
        return f'{rule}: ""'
    firsts, lines = [], []
    for index, item in enumerate(items):
        firsts.append(f"{item} {rule}_{index + 1}")
        if required[index]:
            break
    else:
        firsts.append('""')
    for index in range(1, len(items)):
        mark = "" if required[index] else "?"
        lines.append(f"{rule}_{index}: ({quote(separator)} {items[index]}){mark} {rule}_{index + 1}")
    return "\n".join([f"{rule}: {' | '.join(firsts)}", *lines, f'{rule}_{len(items)}: ""'])


def value(rule: str, schema: Mapping[str, Any], end: str) -> str:
    """Rules: a value and the marker's atom that ends it; strings as they are, all other types in JSON.

    Raises Inexpressible for a string that has to fit a pattern.
    """
    choices, lines = [], []
    for index, one in enumerate(variants(schema)):
        name = f"{rule}_{index}"
        choices.append(name)
        lines.append(_string(name, one, end) if "string" in types(one) else f"{name}: {lark_json(one)} {end}")
    return "\n".join([f"{rule}: {' | '.join(choices)}", *lines])


def _string(rule: str, schema: Mapping[str, Any], end: str) -> str:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None:
        texts = [one if isinstance(one, str) else json.dumps(one) for one in allowed]
        return f"{rule}: ({' | '.join(map(quote, texts))}) {end}"
    if any(key in schema for key in _UNHELD):
        raise Inexpressible
    padded = not is_token(end) and _marker(end) != json.loads(end)
    if padded or "minLength" in schema or "maxLength" in schema:
        return _bounded(rule, schema, end)
    return until(rule, end)


def _marker(end: str) -> str:
    """Readers know an end by this, also where nothing stands before it."""
    text: str = json.loads(end)
    return text.strip()


def _bounded(rule: str, schema: Mapping[str, Any], end: str) -> str:
    """A lazy text would run over a marker that comes too early: the marker itself is ruled out."""
    terminal = f"{rule.upper()}_TEXT"
    line = f"{terminal}: /(.|\\n){{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}/"
    if not is_token(end):
        line += f" & ~/(.|\\n)*{regex(_marker(end))}(.|\\n)*/"
    return f"{until(rule, end, terminal)}\n{line}"
