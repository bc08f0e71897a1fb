"""JSON schemas as clients send them, made ready for a grammar. Knows keywords, no notation of grammars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]

# Those of JSON Schema 2020-12; whatever else stands there is a remark, by the standard.
_FORMATS = {
    *(
        "date-time",
        "date",
        "time",
        "duration",
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv4",
        "ipv6",
    ),
    *("uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer"),
    *("relative-json-pointer", "regex"),
}
_TIMES = {"time": r"^\d\d:\d\d:[0-5]\d[^z]*$", "date-time": r"^[^tz]*T\d\d:\d\d:[0-5]\d[^tz]*$"}
_DATA = ("const", "enum", "default", "examples")  # what they hold is no schema


def known_formats(schema: Any) -> Any:
    """Without formats that JSON Schema does not define, such as OpenAPI's int32."""

    def mend(one: Schema) -> Schema:
        unknown = isinstance(one.get("format"), str) and one["format"] not in _FORMATS
        return {key: value for key, value in one.items() if key != "format"} if unknown else one

    return _everywhere(schema, mend)


def strict_times(schema: Any) -> Any:
    """llguidance lets a time end in a small z and any minute have a leap second; many validators do not."""

    def mend(one: Schema) -> Schema:
        pattern = _TIMES.get(one["format"]) if isinstance(one.get("format"), str) else None
        return one | {"allOf": [*one.get("allOf", []), {"pattern": pattern}]} if pattern else one

    return _everywhere(schema, mend)


def _everywhere(schema: Any, mend: Callable[[Schema], Schema]) -> Any:
    """A schema with every schema in it mended, the innermost first."""
    if isinstance(schema, list):
        return [_everywhere(one, mend) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return mend({key: one if key in _DATA else _everywhere(one, mend) for key, one in schema.items()})
