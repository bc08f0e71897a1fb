"""FunctionGemma's notation as Lark rules: strings between markers, lists and objects of such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basert.tools.format import Tool
from basert.tools.lark import Inexpressible, members, quote, value
from basert.tools.schemas import definitions, inexpressible, lark_json, properties, types, variants

_DEEPEST = 8  # schemas in schemas, of which some contain themselves
_MOST = 2000  # values in all: with references a short schema can have any number of them


class GemmaRules:
    """The rules of one tool's arguments."""

    def __init__(self, tool: Tool, escape: str) -> None:
        """escape: the marker's atom."""
        self.lines: list[str] = []
        self._tool = tool
        self._escape = escape
        self._depth = 0
        self._values = 0

    def object(self, rule: str, schema: Mapping[str, Any]) -> str:
        """Atoms: an object. Raises InvalidRequest for what the notation cannot be held to."""
        declared = properties(Tool(self._tool.name, dict(schema)))
        items = [
            f"{quote(one.name + ':')} {self._value(f'{rule}_{index}', one.schema)}"
            for index, one in enumerate(declared)
        ]
        self.lines.append(members(f"{rule}_members", items, [one.required for one in declared], ","))
        return f'"{{" {rule}_members "}}"'

    def _value(self, rule: str, schema: Mapping[str, Any]) -> str:
        self._depth += 1
        self._values += 1
        if self._depth > _DEEPEST:
            raise inexpressible(self._tool, f"is more than {_DEEPEST} levels deep")
        if self._values > _MOST:
            raise inexpressible(self._tool, f"has more than {_MOST} values")
        choices = [
            self._typed(f"{rule}_{kind}_{index}", kind, one)
            for index, one in enumerate(variants(schema))
            for kind in sorted(types(one))
            if "type" in one or "enum" in one or "const" in one or kind == "string"
        ]
        self._depth -= 1
        return f"({' | '.join(choices)})"

    def _typed(self, rule: str, kind: str, schema: Mapping[str, Any]) -> str:
        """One kind of a value; where nothing is declared, a string is expected."""
        if kind == "object":
            return self.object(rule, schema)
        if kind == "array":
            return self._list(rule, schema)
        if kind != "string":
            return lark_json({**schema, "type": kind})
        try:
            self.lines.append(value(rule, _only_strings(schema), self._escape))
        except Inexpressible:
            raise inexpressible(self._tool, "has a pattern for a string, which cannot be held to") from None
        return f"{self._escape} {rule}"

    def _list(self, rule: str, schema: Mapping[str, Any]) -> str:
        shared = definitions(schema)
        items = schema.get("items")
        item = self._value(f"{rule}_item", {**shared, **(items if isinstance(items, dict) else {})})
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[]"'
        self.lines.append(f"{rule}: {item}")
        last = "" if most is None else most - 1
        listed = f'{rule} ("," {rule}){{{max(least - 1, 0)},{last}}}'
        return f'"[" {listed} "]"' if least else f'"[" ({listed})? "]"'


def _only_strings(schema: Mapping[str, Any]) -> dict[str, Any]:
    allowed = {"enum": [one for one in schema["enum"] if isinstance(one, str)]} if "enum" in schema else {}
    return {**schema, **allowed, "type": "string"}
