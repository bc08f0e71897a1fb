"""A queue with two lanes, interactive before batch, in which neither starves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

TURNS = 8  # every eighth turn is the batch lane's, if both have work


class Prioritised(Protocol):
    @property
    def priority(self) -> int:
        """0 interactive, 1 batch."""


Item = TypeVar("Item", bound=Prioritised)


class Lanes(Generic[Item]):
    """First in, first out within a lane."""

    def __init__(self) -> None:
        self._interactive: deque[Item] = deque()
        self._batch: deque[Item] = deque()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def __iter__(self) -> Iterator[Item]:
        yield from self._interactive
        yield from self._batch

    def push(self, item: Item) -> None:
        (self._batch if item.priority > 0 else self._interactive).append(item)

    def pop(self) -> Item:
        """The next in turn. Raises IndexError when both lanes are empty."""
        if not (self._interactive and self._batch):
            return (self._interactive or self._batch).popleft()
        self._turn = (self._turn + 1) % TURNS
        return (self._interactive if self._turn else self._batch).popleft()

    def remove(self, item: Item) -> None:
        """Take out what is in it, wherever it stands."""
        (self._batch if item.priority > 0 else self._interactive).remove(item)
