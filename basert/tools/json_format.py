"""What the formats with calls in JSON share: markers around one call, or around a list of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from basert.text.parts import Reader
from basert.text.source import Reading, ScriptReader, Source
from basert.tools.calls import calls_in_text
from basert.tools.format import Marker, Tool
from basert.tools.json_call import json_call, json_calls
from basert.tools.lark import quote
from basert.tools.schemas import arguments_schema, lark_json


def call_rule(tools: Sequence[Tool], key: str = "arguments", brace: str = "{") -> str:
    """Rule `call`: one call of any of these tools. brace: what of it is written here."""
    heads = (quote(f'{brace}"name": {json.dumps(tool.name)}, "{key}": ') for tool in tools)
    choices = (
        f'{head} {lark_json(arguments_schema(tool))} "}}"' for head, tool in zip(heads, tools, strict=True)
    )
    return f"call: {' | '.join(choices)}"


class JsonFormat:
    """Calls between two markers, each an object with name and arguments."""

    whole = False

    def __init__(
        self,
        name: str,
        triggers: Sequence[str],
        end: str,
        suits: Callable[[str], bool],
        *,
        listed: bool,
        space: str = "",
    ) -> None:
        """triggers: the first is the one to write, all are read. listed: a group is a list of calls. space:
        what stands between the markers and the call."""
        self.name = name
        self.trigger = triggers[0]
        self.separator = None if listed else "\n"
        self.markers = tuple(marker for marker in (*triggers, end) if marker)
        self._triggers = triggers
        self._end = end
        self._suits = suits
        self._space = space
        self._group = json_calls if listed else json_call

    def suits(self, template: str) -> bool:
        return self._suits(template)

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return ScriptReader(lambda source: calls_in_text(source, self._triggers, self._read))

    def _read(self, source: Source) -> Reading[None]:
        yield from source.skip()
        yield from self._group(source)
        yield from source.skip()
        if self._end:
            yield from source.close(self._end)

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        calls = "call"
        if self.separator is None:
            calls = '"[" call (", " call)* "]"' if parallel else '"[" call "]"'
        space = [quote(self._space)] if self._space else []
        end = [marker(self._end)] if self._end else []
        return f"{' '.join([*space, calls, *space, *end])}\n{call_rule(tools)}"
