"""JSON schemas of arguments: made ready for a grammar, and asked for the types of a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from basert.errors import InvalidRequest
from basert.tools.format import Tool

ALL_TYPES = frozenset(["string", "integer", "number", "boolean", "null", "array", "object"])
# One space at most where JSON may have any: small models would go on with whitespace for ever.
_GUIDANCE = {"whitespace_pattern": " ?"}
_DEEPEST = 8  # references and choices in each other
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


def variants(schema: Mapping[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """The schemas of which a value has to fit one: this one, what it refers to, or what it is any of."""
    choices = _choices(schema)
    if choices is None or depth > _DEEPEST:
        return [dict(schema)]
    shared = definitions(schema)
    return [
        one
        for choice in choices
        if isinstance(choice, dict)
        for one in variants({**shared, **choice}, depth + 1)
    ]


def definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What references in this schema refer to, and how it is read; a part that stands alone needs both."""
    return {key: schema[key] for key in ("$defs", "definitions", "x-guidance") if key in schema}


def _choices(schema: Mapping[str, Any]) -> list[Any] | None:
    if isinstance(reference := schema.get("$ref"), str):
        place, _, name = reference.removeprefix("#/").partition("/")
        target = definitions(schema).get(place, {}).get(name)
        return None if target is None else [target]
    combined = schema.get("allOf", ())
    choices = combined if len(combined) == 1 else schema.get("anyOf") or schema.get("oneOf")
    return choices if isinstance(choices, list) else None


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
