"""FunctionGemma: bare keys, and strings between <escape> markers.

<start_function_call>call:weather{city:<escape>Oslo<escape>,days:3}<end_function_call>
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Reader
from basert.text.source import Reading, ScriptReader, Source
from basert.tools.calls import calls_in_text
from basert.tools.format import Marker, Tool
from basert.tools.gemma_grammar import GemmaRules
from basert.tools.lark import quote
from basert.tools.literals import NAME, GemmaLiterals
from basert.tools.schemas import arguments_schema

BEGIN, END, ESCAPE = "<start_function_call>", "<end_function_call>", "<escape>"


class Gemma:
    name = "gemma"
    markers = (BEGIN, END, ESCAPE)
    trigger = BEGIN
    separator = ""
    whole = False

    def suits(self, template: str) -> bool:
        return BEGIN in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return ScriptReader(lambda source: calls_in_text(source, [BEGIN], _read))

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        choices, lines = [], []
        for index, tool in enumerate(tools):
            rules = GemmaRules(tool, marker(ESCAPE))
            choices.append(f"{quote(tool.name)} {rules.object(f'tool_{index}', arguments_schema(tool))}")
            lines += rules.lines
        return "\n".join([f'"call:" ({" | ".join(choices)}) {marker(END)}', *lines])


def _read(source: Source) -> Reading[None]:
    yield from source.skip()
    yield from source.expect("call:")
    name = yield from source.word(NAME)
    yield from source.skip()
    yield from source.expect("{")
    yield source.start(name)
    yield from GemmaLiterals(source).members("}", ":")
    yield from source.skip()
    yield from source.close(END)
