"""Qwen3-Coder, and Seed-OSS with markers of its own and values on the line of their tags:

<tool_call>
<function=weather>
<parameter=city>
Oslo
</parameter>
</function>
</tool_call>
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from basert.text.parts import Reader
from basert.text.source import Reading, ScriptReader, Source
from basert.tools.calls import calls_in_text
from basert.tools.format import Marker, Tool
from basert.tools.lark import Inexpressible, members, quote, value
from basert.tools.literals import NAME, literal_as_json, quoted
from basert.tools.schemas import (
    ALL_TYPES,
    arguments_schema,
    definitions,
    inexpressible,
    properties,
    types,
)

FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"


class FunctionXml:
    whole = False
    separator = "\n"

    def __init__(self, name: str, begin: str, end: str, *, pad: str) -> None:
        """pad: what stands on either side of a value."""
        self.name = name
        self.trigger = begin
        self.markers = (begin, end)
        self._end = end
        self._pad = pad

    def suits(self, template: str) -> bool:
        return FUNCTION in template and self.trigger in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        schemas = {tool.name: arguments_schema(tool) for tool in tools}

        def read(source: Source) -> Reading[None]:
            yield from source.skip()
            yield from _function(source, schemas)
            yield from source.skip()
            yield from source.close(self._end)

        return ScriptReader(lambda source: calls_in_text(source, [self.trigger], read, belonging=[FUNCTION]))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        choices = " | ".join(f"tool_{index}" for index in range(len(tools)))
        start, end = quote(f"\n{FUNCTION}"), quote(f"{FUNCTION_END}\n")
        rules = [self._rules(f"tool_{index}", tool) for index, tool in enumerate(tools)]
        return "\n".join([f"{start} ({choices}) {end} {marker(self._end)}", *rules])

    def _rules(self, rule: str, tool: Tool) -> str:
        declared = properties(tool)
        items = [
            f'{quote(f"{PARAMETER}{one.name}>{self._pad}")} {rule}_value_{index} "\\n"'
            for index, one in enumerate(declared)
        ]
        try:
            values = [
                value(f"{rule}_value_{index}", one.schema, quote(self._pad + PARAMETER_END))
                for index, one in enumerate(declared)
            ]
        except Inexpressible:
            raise inexpressible(tool, "has a pattern for a string, which cannot be held to") from None
        call = f"{rule}: {quote(tool.name + '>' + chr(10))} {rule}_arguments"
        required = [one.required for one in declared]
        return "\n".join([call, members(f"{rule}_arguments", items, required, ""), *values])


def _function(source: Source, schemas: Mapping[str, Mapping[str, Any]]) -> Reading[None]:
    yield from source.expect(FUNCTION)
    name = yield from source.word(NAME)
    yield from source.expect(">")
    yield source.start(name)
    schema = schemas.get(name, {})
    comma = "{"
    while True:
        yield from source.skip()
        if (yield from source.expect(PARAMETER, FUNCTION_END)) == FUNCTION_END:
            break
        key = (yield from source.whole_until([">"])).strip()
        yield source.arguments(f"{comma}{json.dumps(key, ensure_ascii=False)}:")
        yield from _value(source, _types(schema, key))
        comma = ","
    yield source.arguments("{}" if comma == "{" else "}")


def _types(schema: Mapping[str, Any], key: str) -> frozenset[str]:
    declared = schema.get("properties", {}).get(key)
    if not isinstance(declared, dict):
        return ALL_TYPES
    return types({**definitions(schema), **declared})


def _value(source: Source, kinds: frozenset[str]) -> Reading[None]:
    yield from source.take("\n")
    ends = ("\n" + PARAMETER_END, PARAMETER_END)
    if kinds != {"string"}:
        yield source.arguments(_as_json((yield from source.whole_until(ends)), kinds))
        return
    yield source.arguments('"')
    yield from source.inside(ends, lambda text: source.arguments(quoted(text)))
    yield source.arguments('"')


def _as_json(text: str, kinds: frozenset[str]) -> str:
    """A value that may be something else than a string; what fits nothing declared stays one."""
    literal = literal_as_json(text)
    textual = "string" in kinds and kinds != ALL_TYPES and not (literal == "null" and "null" in kinds)
    return json.dumps(text, ensure_ascii=False) if literal is None or textual else literal
