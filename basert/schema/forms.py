"""Forms as JSON would have them: what requests with a file say beside it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from basert.errors import InvalidRequest


def from_form(
    fields: dict[str, list[str]],
    file: str | None,
    lists: Collection[str] = (),
    objects: Collection[str] = (),
) -> dict[str, Any]:
    """A form's fields: lists and objects by name, one value of everything else.

    Names may end in [] where lists are meant, or name a member, as chunking_strategy[type]; objects may be
    written as JSON. file: its name. Raises InvalidRequest for a field that comes twice.
    """
    values: dict[str, Any] = {} if file is None else {"file": file}
    for given_name, texts in fields.items():
        name, _, member = given_name.removesuffix("[]").rstrip("]").partition("[")
        said = [text for text in texts if text]
        if name in lists:
            values.setdefault(name, []).extend(said)
        elif len(said) > 1:
            raise InvalidRequest(f"The form has '{given_name}' more than once; send it once.", param=name)
        elif said and member:
            inner = values.setdefault(name, {})
            if isinstance(inner, dict):
                inner[member] = said[0]
        elif said:
            values[name] = _decoded(name, said[0]) if name in objects else said[0]
    return values


def _decoded(name: str, text: str) -> Any:
    """An object is written as JSON in a form; everything else as it is."""
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"Invalid '{name}': it is no JSON.", param=name) from None
