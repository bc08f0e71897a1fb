"""Texts as requests have them: a string, strings, token ids or lists of token ids."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from basert.errors import InvalidRequest

Texts = str | Annotated[list[str | int | list[int]], Meta(min_length=1)]


def listed(texts: Texts, param: str) -> list[str] | list[list[int]]:
    """All of them, in order, of one kind. Raises InvalidRequest when kinds are mixed."""
    if isinstance(texts, str):
        return [texts]
    strings = [one for one in texts if isinstance(one, str)]
    ids = [one for one in texts if isinstance(one, int)]
    lists = [one for one in texts if isinstance(one, list)]
    if len(texts) == len(ids):
        return [ids]
    if len(texts) not in (len(strings), len(lists)):
        raise InvalidRequest(
            f"Invalid '{param}': expected a string, strings, token ids or lists of token ids.", param=param
        )
    return strings or lists
