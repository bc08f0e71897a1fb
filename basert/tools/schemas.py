"""JSON schemas of arguments: made ready for a grammar, and asked for the types of a value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from basert.errors import InvalidRequest
from basert.tools.format import Tool

ALL_TYPES = frozenset(["string", "integer", "number", "boolean", "null", "array", "object"])
# One space at most where JSON may have any: small models would go on with whitespace for ever.
_GUIDANCE = {"whitespace_pattern": " ?"}
_DEEPEST = 8  # references and choices in each other
MOST_VARIANTS = 64
_COMBINING = ("$ref", "anyOf", "oneOf", "allOf", "not", "if", "patternProperties", "dependentSchemas")
_PYTHON_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}


class Property(NamedTuple):
    name: str
    schema: dict[str, Any]
    required: bool


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments. They are an object, and undeclared ones are not wanted."""
    schema = {**tool.parameters, "x-guidance": {**_GUIDANCE, "lenient": tool.lenient}}
    if not any(key in schema for key in _COMBINING):
        schema.setdefault("type", "object")
        schema.setdefault("properties", {})
        schema.setdefault("additionalProperties", False)
    return schema


def lark_json(schema: Mapping[str, Any]) -> str:
    """An atom of a Lark grammar: a JSON value held to this schema."""
    return "%json " + json.dumps({"x-guidance": _GUIDANCE, **schema}, ensure_ascii=False)


def properties(tool: Tool) -> list[Property]:
    """A tool's arguments one by one. Raises InvalidRequest if its schema does not list them."""
    schema = arguments_schema(tool)
    declared = schema.get("properties", {})
    required = schema.get("required", [])
    if schema.get("type") != "object" or any(key in schema for key in _COMBINING):
        raise inexpressible(tool, "has to be a plain object with `properties`")
    if missing := [name for name in required if name not in declared]:
        raise inexpressible(tool, f"requires {missing[0]!r} without declaring it in `properties`")
    shared = definitions(schema)
    return [
        Property(name, {**shared, **(one if isinstance(one, dict) else {})}, name in required)
        for name, one in declared.items()
    ]


def inexpressible(tool: Tool, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"In the tool-call format of this model the schema of {tool.name!r} {why}.", param="tools"
    )


def variants(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The schemas of which a value has to fit one: this one, what it refers to, or what it is any of.

    Raises InvalidRequest where there are more of them than anybody needs.
    """
    found = list(islice(_variants(schema, 0), MOST_VARIANTS + 1))
    if len(found) > MOST_VARIANTS:
        raise InvalidRequest(
            f"In the tool-call format of this model an argument has at most {MOST_VARIANTS} alternatives.",
            param="tools",
        )
    return found


def _variants(schema: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    keyword, choices = _choices(schema)
    if not keyword or depth > _DEEPEST:
        yield dict(schema)
        return
    beside = {key: value for key, value in schema.items() if key != keyword}
    for choice in choices:
        if isinstance(choice, dict):
            yield from _variants({**beside, **choice}, depth + 1)


def definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What references in this schema refer to, and how it is read; a part that stands alone needs both."""
    return {key: schema[key] for key in ("$defs", "definitions", "x-guidance") if key in schema}


def _choices(schema: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The keyword that leaves a choice, and between what; "" where none does."""
    if isinstance(reference := schema.get("$ref"), str):
        place, _, name = reference.removeprefix("#/").partition("/")
        target = definitions(schema).get(place, {}).get(name)
        return ("", []) if target is None else ("$ref", [target])
    for keyword in ("allOf", "anyOf", "oneOf"):
        choices = schema.get(keyword)
        if isinstance(choices, list) and (keyword != "allOf" or len(choices) == 1):
            return keyword, choices
    return "", []


def types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types that a value may have."""
    return frozenset[str]().union(*map(_types, variants(schema)))


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset([declared])
    if isinstance(declared, list):
        return frozenset(declared)
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        return frozenset(_PYTHON_TYPES.get(type(value), "null") for value in values)
    return ALL_TYPES
