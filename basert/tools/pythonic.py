"""Llama 3.2 and 4 as their cards describe it: the answer is a list of Python calls.

[weather(city="Oslo", days=3), time(zone="CET")]
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Reader
from basert.text.source import Malformed, Reading, ScriptReader, Source
from basert.tools.calls import calls_or_text
from basert.tools.format import Marker, Tool
from basert.tools.lark import members, quote
from basert.tools.literals import NAME, PythonLiterals
from basert.tools.schemas import Property, lark_json, properties, types

START, END = "<|python_start|>", "<|python_end|>"


class Pythonic:
    name = "pythonic"
    markers = (START, END)
    trigger = "["
    separator = None
    whole = True

    def suits(self, template: str) -> bool:
        return START in template or "[func_name1(" in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        known = {tool.name for tool in tools}  # a list may be an answer like any other
        return ScriptReader(lambda source: calls_or_text(source, lambda source: _read(source, known)))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        calls = 'call (", " call)* "]"' if parallel else 'call "]"'
        choices = " | ".join(f"tool_{index}" for index in range(len(tools)))
        return "\n".join(
            [calls, f"call: {choices}", *(_rules(f"tool_{i}", tool) for i, tool in enumerate(tools))]
        )


def _rules(rule: str, tool: Tool) -> str:
    declared = properties(tool)
    items = [f"{quote(one.name + '=')} {_value(one)}" for one in declared]
    call = f"{rule}: {quote(tool.name + '(')} {rule}_arguments {quote(')')}"
    return f"{call}\n{members(f'{rule}_arguments', items, [one.required for one in declared], ', ')}"


def _value(one: Property) -> str:
    """Strings, numbers and brackets look the same in Python as in JSON."""
    return '("True" | "False")' if types(one.schema) == {"boolean"} else lark_json(one.schema)


def _read(source: Source, known: set[str]) -> Reading[None]:
    yield from source.take(START)
    yield from source.skip()
    yield from source.expect("[")
    while True:
        yield from source.skip()
        yield from _call(source, known)
        yield from source.skip()
        if (yield from source.expect(",", "]")) == "]":
            break
    yield from source.skip()
    yield from source.close(END)


def _call(source: Source, known: set[str]) -> Reading[None]:
    name = yield from source.word(NAME)
    if name not in known:
        raise Malformed
    yield from source.skip()
    yield from source.expect("(")
    yield source.start(name)
    yield from PythonLiterals(source).members(")", "=")
