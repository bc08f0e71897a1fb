"""Jinja's filters as chat templates get them: those that could explode pay first or are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from jinja2 import Environment, TemplateError, pass_environment
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import make_attrgetter

from basert.text.budget import CONTAINERS, check_percent, check_replace, check_width, joined, spend

# No chat template needs these, and they turn a small argument into a large result.
LEFT_OUT = {"batch", "center", "filesizeformat", "pprint", "slice", "urlize", "wordwrap", "xmlattr"}

MAX_JSON_INDENT = 16  # for each level of nesting


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, paying for a step and for what it makes."""

    @wraps(function)  # jinja keeps in its attributes which of the contexts a filter wants
    def paying(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        spend(len(result) if isinstance(result, (str, *CONTAINERS)) else 0)
        return result

    return paying


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: no HTML escapes, json.dumps' own options."""
    check_width(indent, MAX_JSON_INDENT)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    check_width(width)
    spend((s.count("\n") + 1) * (width if isinstance(width, int) else len(width)))
    return JINJA_FILTERS["indent"](s, width, first, blank)  # type: ignore[no-any-return]


def _replace(s: object, old: str, new: str, count: int | None = None) -> str:
    text = str(s)
    check_replace(text, old, new)
    return text.replace(old, new, -1 if count is None else count)


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return joined(value, str(d))


@pass_environment
def _sum(
    environment: Environment, iterable: Iterable[Any], attribute: str | int | None = None, start: float = 0
) -> float:
    """Of numbers only: adding up lists takes quadratic time."""
    if not isinstance(start, int | float):
        raise TemplateError("the chat template adds up what is no number")
    if attribute is not None:
        iterable = map(make_attrgetter(environment, attribute), iterable)
    return sum(iterable, start)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    check_percent(str(value))
    return str(value) % (kwargs or args)


_OURS = {
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "sum": _sum,
    "tojson": _tojson,
}
FILTERS = {
    name: _paid(_OURS.get(name, function)) for name, function in JINJA_FILTERS.items() if name not in LEFT_OUT
}
