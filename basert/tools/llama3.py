"""Llama 3.1 and 3.2: the answer is one JSON object, perhaps after <|python_tag|>.

{"name": "weather", "parameters": {"city": "Oslo"}}
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Reader
from basert.text.source import Reading, ScriptReader, Source
from basert.tools.calls import calls_or_text
from basert.tools.format import Marker, Tool
from basert.tools.json_call import json_call
from basert.tools.json_format import call_rule

TAG = "<|python_tag|>"


class Llama3:
    name = "llama3"
    markers = (TAG,)
    trigger = "{"
    separator = None
    whole = True

    def suits(self, template: str) -> bool:
        return TAG in template or '"parameters": dictionary of argument name' in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        known = {tool.name for tool in tools}  # JSON with a "name" may be an answer like any other
        return ScriptReader(lambda source: calls_or_text(source, lambda source: _read(source, known)))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        """One call: the models write no more."""
        return f"call\n{call_rule(tools, 'parameters', brace='')}"


def _read(source: Source, known: set[str]) -> Reading[None]:
    yield from source.take(TAG)
    while True:
        yield from source.skip()
        yield from json_call(source, known)
        yield from source.skip()
        if not (yield from source.take(";")) and (yield from source.peek()) != "{":
            return
