"""JSON schemas as clients send them: checked, and made ready for a grammar. Knows keywords, no grammars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from basert.schema.parsing import convert

Schema = dict[str, Any]
Count = Annotated[float, Meta(ge=0)]
Kind = Literal["string", "number", "integer", "boolean", "object", "array", "null"]

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


class Keywords(msgspec.Struct, kw_only=True):
    """The keywords of JSON Schema 2020-12 (and `definitions`, older), by the types of their values. A null is
    as good as an absent one. What schemas mean is not looked at here."""

    type: Kind | list[Kind] | None = None
    enum: list[Any] | None = None
    ref: str | None = field(default=None, name="$ref")
    defs: dict[str, Keywords | bool] | None = field(default=None, name="$defs")
    definitions: dict[str, Keywords | bool] | None = None
    properties: dict[str, Keywords | bool] | None = None
    pattern_properties: dict[str, Keywords | bool] | None = field(default=None, name="patternProperties")
    additional_properties: Keywords | bool | None = field(default=None, name="additionalProperties")
    required: list[str] | None = None
    min_properties: Count | None = field(default=None, name="minProperties")
    max_properties: Count | None = field(default=None, name="maxProperties")
    items: Keywords | bool | None = None
    prefix_items: list[Keywords | bool] | None = field(default=None, name="prefixItems")
    min_items: Count | None = field(default=None, name="minItems")
    max_items: Count | None = field(default=None, name="maxItems")
    min_length: Count | None = field(default=None, name="minLength")
    max_length: Count | None = field(default=None, name="maxLength")
    pattern: str | None = None
    format: str | None = None
    any_of: list[Keywords | bool] | None = field(default=None, name="anyOf")
    one_of: list[Keywords | bool] | None = field(default=None, name="oneOf")
    all_of: list[Keywords | bool] | None = field(default=None, name="allOf")


def check_schema(schema: Schema, where: str) -> None:
    """Raises InvalidRequest for what is no JSON schema; `where` in the request it stands."""
    convert(schema, Keywords, where)


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
