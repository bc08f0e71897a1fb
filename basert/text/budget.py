"""What one rendering of a chat template may still do, and what its operations cost.

Costs are paid before memory is taken wherever a small argument makes a large result. Knows no Jinja syntax.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from string import Formatter
from typing import Any

from jinja2 import TemplateError

MAX_STEPS = 400_000
MAX_SIZE = 16 << 20  # characters and items made, all together
MAX_ITEMS = 1 << 20  # in one container, nested ones included
MAX_SECONDS = 5.0
MAX_WIDTH = 10_000  # of padding and indentation
MAX_BITS = 1024  # of whole numbers

CONTAINERS = (list, tuple, dict)


class BudgetExceeded(TemplateError):
    """The template did more than any honest one needs."""


class Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._size = MAX_SIZE
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self, size: int) -> None:
        """One step that makes `size` characters or items. Raises BudgetExceeded."""
        self._steps -= 1
        self._size -= size
        if self._steps < 0 or (self._steps % 64 == 0 and time.monotonic() > self._deadline):
            raise BudgetExceeded("the chat template does not come to an end")
        if self._size < 0:
            raise BudgetExceeded("the chat template makes too long a text")


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def budget() -> Iterator[None]:
    """Everything inside, compiling as well as rendering, shares one fresh Budget."""
    token = _budget.set(Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def spend(size: int) -> None:
    _budget.get().spend(size)


def measured(value: Any) -> Any:
    """The value itself, paid for: a text by its length, a container by all that is in it, however deep."""
    if isinstance(value, str):
        spend(len(value))
    elif isinstance(value, CONTAINERS):
        spend(_extent(value))
    return value


def _extent(container: Any) -> int:
    """Items in all, one counted wherever it appears: a list that holds another twice is twice as large."""
    stack, items = [container], 0
    while stack:
        one = stack.pop()
        items += len(one)
        parts = one.values() if isinstance(one, dict) else one
        stack.extend(part for part in parts if isinstance(part, CONTAINERS))
        if items > MAX_ITEMS:
            raise BudgetExceeded("the chat template makes too long a list")
    return items


def joined(parts: Iterable[object], separator: str = "") -> str:
    """`separator.join(map(str, parts))`, paid for before it is made."""
    texts = []
    for part in parts:
        text = str(part)
        spend(len(text) + len(separator))
        texts.append(text)
    return separator.join(texts)


def check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise BudgetExceeded("the chat template computes too large a number")


def check_width(width: int | str | None, most: int = MAX_WIDTH) -> None:
    """Of padding, in characters or as them."""
    if (len(width) if isinstance(width, str) else width or 0) > most:
        raise BudgetExceeded("the chat template pads a text too widely")


def check_replace(text: str, old: str, new: str) -> None:
    spend(text.count(old) * len(new))


def check_format(text: str) -> None:
    """Of str.format: a width of five digits, or one that is an argument, could be any."""
    for _, _, spec, _ in Formatter().parse(text):
        if spec and re.search(r"\d{5}|\{", spec):
            raise BudgetExceeded("the chat template pads a text too widely")


def check_percent(text: str) -> None:
    """Likewise, of the % operator."""
    if re.search(r"%[^%a-zA-Z]*(\*|\d{5})", text):
        raise BudgetExceeded("the chat template pads a text too widely")
