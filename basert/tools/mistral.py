"""Mistral: a list after the marker, or, in newer models, name and arguments with markers between.

[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}]
[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]time[ARGS]{"zone": "CET"}
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Reader
from basert.text.source import Malformed, Reading, ScriptReader, Source
from basert.tools.calls import calls_in_text
from basert.tools.format import Marker, Tool
from basert.tools.json_call import json_arguments, json_calls
from basert.tools.json_format import call_rule
from basert.tools.lark import quote
from basert.tools.literals import NAME
from basert.tools.schemas import arguments_schema, lark_json

BEGIN, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class Mistral:
    """Name and arguments. Reads either form."""

    name = "mistral"
    markers: tuple[str, ...] = (BEGIN, ARGS, CALL_ID)
    trigger = BEGIN
    separator: str | None = ""
    whole = False

    def suits(self, template: str) -> bool:
        return BEGIN in template and ARGS in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return ScriptReader(lambda source: calls_in_text(source, [BEGIN], _read))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        heads = (f"{quote(tool.name)} {marker(ARGS)} {lark_json(arguments_schema(tool))}" for tool in tools)
        return f"call\ncall: {' | '.join(heads)}"


class MistralList(Mistral):
    """The older form."""

    name = "mistral-list"
    separator = None

    def suits(self, template: str) -> bool:
        return BEGIN in template and ARGS not in template

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        more = ' (", " call)*' if parallel else ""
        return f'" "? "[" call{more} "]"\n{call_rule(tools)}'


def _read(source: Source) -> Reading[None]:
    yield from source.skip()
    if (yield from source.peek()) == "[":
        yield from json_calls(source)
        return
    name = yield from source.word(NAME)
    yield from source.skip()
    marker = yield from source.take(CALL_ID, ARGS)
    if marker == CALL_ID:
        yield from source.whole_until([ARGS])
    elif not marker and (yield from source.peek()) != "{":
        raise Malformed
    yield source.start(name)
    yield from json_arguments(source)
