"""The Jinja environment chat templates run in: what transformers gives them, in a sandbox with a budget.

A template comes from a checkpoint, which is a stranger's. Jinja's sandbox keeps it from Python; the Budget
keeps it from running for ever or filling the memory. What costs is metered where it happens: every loop
iteration, call, filter, concatenation and container that the template makes. Knows no messages and no HTTP.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from string import Formatter
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, nodes, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 400_000
MAX_SIZE = 16 << 20  # characters and items made, all together
MAX_ITEMS = 1 << 20  # in one container, nested ones included
MAX_SECONDS = 5.0
MAX_WIDTH = 10_000  # of padding and indentation
MAX_BITS = 1024  # of whole numbers

# Filters that no chat template needs and that turn a small argument into a large result.
_LEFT_OUT = {"batch", "center", "filesizeformat", "pprint", "slice", "urlize", "wordwrap", "xmlattr"}

# Methods a template may call on plain data; on numbers there are none worth having.
_METHODS: dict[type, set[str]] = {
    str: {
        *("capitalize", "casefold", "count", "endswith", "find", "format", "index", "join", "lower"),
        *("lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition"),
        *("rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
        *(name for name in dir(str) if name.startswith("is")),
        *("center", "ljust", "rjust", "zfill"),
    },
    list: {"copy", "count", "index"},
    tuple: {"count", "index"},
    dict: {"copy", "get", "items", "keys", "values"},
    int: set(),
    float: set(),
    bytes: set(),
}
_CONTAINERS = (list, tuple, dict)
_PADDING = {"center", "ljust", "rjust", "zfill"}


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
    elif isinstance(value, _CONTAINERS):
        spend(_extent(value))
    return value


def _extent(container: Any) -> int:
    """Items in all, one counted wherever it appears: a list that holds another twice is twice as large."""
    stack, items = [container], 0
    while stack:
        one = stack.pop()
        items += len(one)
        parts = one.values() if isinstance(one, dict) else one
        stack.extend(part for part in parts if isinstance(part, _CONTAINERS))
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


class _MeteringGenerator(CodeGenerator):
    """Compiles loops, concatenations and literals to code that pays."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        # Jinja allows no node types of one's own; this one is written out as `environment.tick()`.
        tick = nodes.EnvironmentAttribute("tick()", lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        parts = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        self._paying("joined", parts, frame, super().visit_Tuple)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._paying("measured", node, frame, super().visit_List)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._paying("measured", node, frame, super().visit_Tuple)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._paying("measured", node, frame, super().visit_Dict)

    def _paying(self, name: str, node: Any, frame: Frame, visit: Callable[[Any, Frame], None]) -> None:
        self.write(f"environment.{name}(")
        visit(node, frame)
        self.write(")")


class _Generation(Extension):
    """`{% generation %}`, with which templates mark the assistant's words for training, is of no effect."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace takes no attribute {name!r}")
        super().__setitem__(name, value)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Templates see messages as transformers shows them: same blocks, same filters, same functions."""

    code_generator_class = _MeteringGenerator
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    tick = staticmethod(lambda: spend(0))
    joined = staticmethod(joined)
    measured = staticmethod(measured)
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.globals = {name: value for name, value in self.globals.items() if name != "lipsum"}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda pattern: datetime.now().strftime(pattern),
            "dict": _dict,
            "namespace": _Namespace,
        }
        filters = {name: function for name, function in FILTERS.items() if name not in _LEFT_OUT}
        filters |= {"tojson": _tojson, "indent": _indent, "replace": _replace, "join": _join}
        filters |= {"format": _format, "sum": _sum}
        self.filters = {name: _paid(function) for name, function in filters.items()}

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        spend(0)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            return _call_method(owner, obj, args, kwargs)
        return measured(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return measured(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Not the class itself: it has methods that would change what they are given."""
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, paying for a step and for what it makes."""

    @wraps(function)  # jinja keeps in its attributes which of the contexts a filter wants
    def paying(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        spend(len(result) if isinstance(result, (str, *_CONTAINERS)) else 0)
        return result

    return paying


def _call_method(owner: str, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = method.__name__
    if name == "join":
        return joined(args[0], owner)
    if name in _PADDING:
        _check_width(args[0])
    elif name == "replace":
        _check_replace(owner, *args[:2])
    return measured(method(*args, **kwargs))


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        left, right = right, left
    if operator == "*" and isinstance(left, str | list | tuple) and isinstance(right, int):
        spend(len(left) * max(right, 0))
    elif operator == "*" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))
    elif operator == "%" and isinstance(left, str):
        _check_percent(left)


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise BudgetExceeded("the chat template computes too large a number")


def _check_width(width: Any) -> None:
    if isinstance(width, int) and width > MAX_WIDTH:
        raise BudgetExceeded("the chat template pads a text too widely")


def _check_replace(text: str, old: str, new: str) -> None:
    spend(text.count(old) * len(new))


def _check_format(text: str) -> None:
    """Of str.format: a width of five digits, or one that is an argument, could be any."""
    for _, _, spec, _ in Formatter().parse(text):
        if spec and re.search(r"\d{5}|\{", spec):
            raise BudgetExceeded("the chat template pads a text too widely")


def _check_percent(text: str) -> None:
    """Likewise, of the % operator."""
    if re.search(r"%[^%a-zA-Z]*(\*|\d{5})", text):
        raise BudgetExceeded("the chat template pads a text too widely")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: no HTML escapes, json.dumps' own options."""
    _check_width(indent)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _check_width(width)
    spend((s.count("\n") + 1) * (width if isinstance(width, int) else len(width)))
    return FILTERS["indent"](s, width, first, blank)  # type: ignore[no-any-return]


def _replace(s: object, old: str, new: str, count: int | None = None) -> str:
    text = str(s)
    _check_replace(text, old, new)
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
    _check_percent(str(value))
    return str(value) % (kwargs or args)
