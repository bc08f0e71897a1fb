"""The Jinja environment chat templates run in: what transformers gives them, in a sandbox with a budget.

A template comes from a checkpoint, which is a stranger's. Jinja's sandbox keeps it from Python; the budget
keeps it from running for ever or filling the memory. What costs is metered where it happens: every loop
iteration, call, filter, concatenation and container that the template makes. Knows no messages and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from basert.text.budget import (
    check_bits,
    check_format,
    check_percent,
    check_replace,
    check_width,
    joined,
    measured,
    spend,
)
from basert.text.filters import FILTERS

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
_PADDING = {"center", "ljust", "rjust", "zfill"}


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
        self.filters = FILTERS.copy()

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
            check_format(value.__self__)
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


def _call_method(owner: str, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = method.__name__
    if name == "join":
        return joined(args[0], owner)
    if name in _PADDING:
        check_width(args[0])
    elif name == "replace":
        check_replace(owner, *args[:2])
    return measured(method(*args, **kwargs))


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        left, right = right, left
    if operator == "*" and isinstance(left, str | list | tuple) and isinstance(right, int):
        spend(len(left) * max(right, 0))
    elif operator == "*" and isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() * abs(right))
    elif operator == "%" and isinstance(left, str):
        check_percent(left)
