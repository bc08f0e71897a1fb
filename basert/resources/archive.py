"""Responses that are kept, each with all that it was an answer to, and what requests take up of them."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from basert.errors import InvalidRequest, NotFound
from basert.resources.kept import Kept
from basert.schema.response_items import Item, read_items, response_of
from basert.schema.response_object import ResponseObject
from basert.schema.responses import ResponsesRequest


class Record(msgspec.Struct):
    items: list[Item]
    response: ResponseObject


class Archive:
    """The records of one server, each for the key that it was made with."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    @property
    def is_open(self) -> bool:
        """Whether anything is kept at all."""
        return self._kept.is_open

    def put(self, record: Record, owner: str) -> None:
        self._kept.put(record.response.id, owner, msgspec.json.encode(record))

    def get(self, name: str, owner: str) -> Record:
        """Raises NotFound."""
        if (record := self._find(name, owner)) is None:
            raise _unknown(name)
        return record

    def remove(self, name: str, owner: str) -> None:
        """Raises NotFound."""
        if not self._kept.remove(name, owner):
            raise _unknown(name)

    def items_of(self, request: ResponsesRequest, owner: str) -> list[Item]:
        """All that a request says, with the response that it goes on with and the items that it refers to.

        Raises InvalidRequest, NotFound.
        """
        find = lru_cache(maxsize=16)(lambda name: self._find(name, owner))  # several items refer to one

        def referred(item: str) -> Item:
            record = find(response_of(item) or "")
            for one in record.response.output if record is not None else []:
                if one.id == item:
                    return one
            raise NotFound(f"Item with id '{item}' not found; send the item itself.", param="input")

        return [*self._before(request, owner), *read_items(request.input or [], referred)]

    def _before(self, request: ResponsesRequest, owner: str) -> list[Item]:
        name = request.previous_response_id
        if not name:
            return []
        if (record := self._find(name, owner)) is None:
            raise InvalidRequest(
                f"Previous response with id '{name}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return [*record.items, *record.response.output]

    def _find(self, name: str, owner: str) -> Record | None:
        raw = self._kept.get(name, owner)
        return None if raw is None else msgspec.json.decode(raw, type=Record)


def _unknown(name: str) -> NotFound:
    return NotFound(f"Response with id '{name}' not found.", param="response_id")
