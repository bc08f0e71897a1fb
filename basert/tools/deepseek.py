"""DeepSeek: V3 and R1 with a fence around the arguments, V3.1 without.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather
```json
{"city": "Oslo"}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>…
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Reader
from basert.text.source import Malformed, Reading, ScriptReader, Source
from basert.tools.calls import calls_in_text
from basert.tools.format import Marker, Tool
from basert.tools.json_call import json_arguments
from basert.tools.lark import quote
from basert.tools.literals import NAME
from basert.tools.schemas import arguments_schema, lark_json

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE, FENCE_END = "```json", "```"


class Deepseek:
    """V3.1. Reads either form."""

    name = "deepseek-v3.1"
    markers = (CALLS, CALLS_END, CALL, SEPARATOR, CALL_END)
    trigger = CALLS
    separator = None
    whole = False
    between = ""  # two calls

    def suits(self, template: str) -> bool:
        return CALLS in template and FENCE not in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return ScriptReader(lambda source: calls_in_text(source, [CALLS], _read))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        between = quote(self.between) if self.between else ""
        more = f"({between} call)* " if parallel else ""
        choices = " | ".join(self.call(tool, marker) for tool in tools)
        return f"call {more}{marker(CALLS_END)}\ncall: {marker(CALL)} ({choices}) {marker(CALL_END)}"

    def call(self, tool: Tool, marker: Marker) -> str:
        """What stands between a call's markers."""
        return f"{quote(tool.name)} {marker(SEPARATOR)} {lark_json(arguments_schema(tool))}"


class DeepseekFenced(Deepseek):
    """V3 and R1."""

    name = "deepseek-v3"
    between = "\n"

    def suits(self, template: str) -> bool:
        return CALLS in template and FENCE in template

    def call(self, tool: Tool, marker: Marker) -> str:
        head, end = quote(f"{tool.name}\n{FENCE}\n"), quote(f"\n{FENCE_END}")
        return f'"function" {marker(SEPARATOR)} {head} {lark_json(arguments_schema(tool))} {end}'


def _read(source: Source) -> Reading[None]:
    yield from source.skip()
    yield from source.expect(CALL)
    while True:
        yield from _call(source)
        yield from source.skip()
        if not (yield from source.take(CALL)):
            break
    yield from source.close(CALLS_END)


def _call(source: Source) -> Reading[None]:
    name = (yield from source.whole_until([SEPARATOR])).strip()
    yield from source.skip()
    fenced = (yield from source.peek()) != "{"
    if fenced:
        name = yield from source.word(NAME)
        yield from source.skip()
        yield from source.expect(FENCE)
    if not NAME.fullmatch(name):
        raise Malformed
    yield source.start(name)
    yield from json_arguments(source)
    yield from source.skip()
    if fenced:
        yield from source.close(FENCE_END)
        yield from source.skip()
    yield from source.close(CALL_END)
