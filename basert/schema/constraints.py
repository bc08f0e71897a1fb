"""What an answer has to look like: the fields that ask for it, and the grammar they come to.

The grammar is in llguidance's JSON form, or GBNF; an engine compiles it, and says what it cannot guarantee.
Fields of OpenAI (`response_format`), of vLLM (`structured_outputs`, `guided_*`) and of llama.cpp's server
(`grammar`, `json_schema`) all come to the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.messages import Grammar
from basert.schema.drawing import DrawingFields
from basert.schema.json_schemas import check_schema, known_formats, strict_times
from basert.schema.parsing import too_deep

# One space, or a line break with indentation, where JSON may have any: no model can go on with it for ever.
WHITESPACE = r" |\n {0,16}"
MOST_BYTES = 1 << 19
MOST_CHOICES = 2048
MOST_DEEP = 64

# A first rule, or options. Lines may be many: nothing here looks past the end of one.
_LARK = re.compile(r"^[ \t]*(?:%llguidance\b|start(?:\[[^\]\n]*\])?[ \t]*:(?!:))", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")  # which may not stand in a Lark text as they are

Field = Annotated[Any, Meta(description="What the answer has to look like; at most one such field.")]


class ConstraintFields(DrawingFields, kw_only=True):
    """The fields, in a request; at most one of them may ask for anything."""

    response_format: Field = None
    structured_outputs: Field = None
    guided_json: Field = None
    guided_regex: Field = None
    guided_choice: Field = None
    guided_grammar: Field = None
    json_schema: Field = None
    grammar: Field = None

    def constraint(self) -> Grammar | None:
        """The grammar, if one is asked for. Raises InvalidRequest."""
        asked = {name: make for name, make in _FIELDS.items() if getattr(self, name) not in (None, "")}
        grammars = [
            Grammar(text, name)
            for name, make in asked.items()
            if (text := make(name, getattr(self, name))) is not None
        ]
        if len(grammars) > 1:
            raise InvalidRequest(
                f"'{grammars[0].field}' and '{grammars[1].field}' both say what the answer must look like; "
                "leave one of them out.",
                param=grammars[1].field,
            )
        return limited(grammars[0]) if grammars else None


def limited(grammar: Grammar) -> Grammar:
    """The same. Raises InvalidRequest for one that nobody should have to compile."""
    if len(grammar.text) > MOST_BYTES or len(grammar.text.encode()) > MOST_BYTES:
        field = grammar.field
        raise InvalidRequest(
            f"Invalid '{field}': it makes a grammar of over {MOST_BYTES} bytes.", param=field
        )
    return grammar


def json_grammar(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema (2020-12) as one of llguidance's grammars."""
    mended = strict_times(known_formats(schema))
    return {"json_schema": {**mended, "x-guidance": {"whitespace_pattern": WHITESPACE}}}


def grammar_text(*grammars: Mapping[str, Any]) -> str:
    """As the engine takes it. The first is where it starts; the others go by their names."""
    return msgspec.json.encode({"grammars": list(grammars)}).decode()


def _response_format(field: str, value: Any) -> str | None:
    match value:
        case {"type": "text"}:
            return None
        case {"type": "json_object", "schema": schema}:  # llama.cpp's server
            return _json(f"{field}.schema", schema)
        case {"type": "json_object"}:
            return _json(field, {"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return _json(f"{field}.json_schema.schema", schema)
        case {"type": "json_schema", "schema": schema}:  # as the Responses API and llama.cpp's server have it
            return _json(f"{field}.schema", schema)
        case {"type": "json_schema"}:
            param = f"{field}.json_schema.schema"
            raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param)
    raise InvalidRequest(
        f'Invalid \'{field}\': its \'type\' must be "text", "json_object" or "json_schema".', param=field
    )


def _structured(field: str, value: Any) -> str | None:
    """vLLM's: an object with one of json, regex, choice, grammar, json_object."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"Invalid '{field}': expected an object.", param=field)
    asked = {name: one for name, one in value.items() if one is not None and one is not False}
    kinds = [name for name in asked if name in _KINDS]
    if len(kinds) != 1:
        raise InvalidRequest(f"Invalid '{field}': send one of {', '.join(_KINDS)}.", param=field)
    return _KINDS[kinds[0]](f"{field}.{kinds[0]}", asked[kinds[0]])


def _json(field: str, schema: Any) -> str:
    if isinstance(schema, str):
        schema = _decoded(field, schema)
    if not isinstance(schema, dict):
        raise InvalidRequest(f"Invalid '{field}': expected a JSON schema, an object.", param=field)
    check_schema(schema, field)
    return grammar_text(json_grammar(schema))


def _decoded(field: str, text: str) -> Any:
    """A schema that is sent as a text, which the limit on a body's depth does not see."""
    if too_deep(text.encode(), MOST_DEEP):
        raise InvalidRequest(
            f"Invalid '{field}': it is nested more than {MOST_DEEP} levels deep.", param=field
        )
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"Invalid '{field}': it is not valid JSON ({error}).", param=field) from None


def _regex(field: str, value: Any) -> str:
    pattern = _string(field, value)
    body = pattern.removeprefix("^")
    if re.search(r"(?<!\\)(\\\\)*\$$", body):  # the whole answer has to match anyway
        body = body[:-1]
    return grammar_text({"lark_grammar": f"start: /{_quoted_slashes(body)}/"})


def _quoted_slashes(pattern: str) -> str:
    """As it may stand between two slashes on one line."""
    escaped = re.sub(r"(\\.)|/", lambda match: match[1] or r"\/", pattern)
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped)


def _choice(field: str, value: Any) -> str:
    if not (isinstance(value, list) and value and all(isinstance(one, str) and one for one in value)):
        raise InvalidRequest(f"Invalid '{field}': expected strings that are not empty.", param=field)
    if len(value) > MOST_CHOICES:
        raise InvalidRequest(f"Invalid '{field}': more than {MOST_CHOICES} choices.", param=field)
    choices = " | ".join(map(_lark_string, dict.fromkeys(value)))
    return grammar_text({"lark_grammar": f"start: {choices}"})


def _lark_string(text: str) -> str:
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", msgspec.json.encode(text).decode())


def _grammar(field: str, value: Any) -> str:
    """A client's own: in llguidance's dialect of Lark or its JSON form, else in GBNF."""
    text = _string(field, value)
    return grammar_text({"lark_grammar": text}) if _LARK.search(text) else text


def _object(field: str, _value: Any) -> str:
    return _json(field, {"type": "object"})


def _string(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"Invalid '{field}': expected a string that is not empty.", param=field)
    return value


_Make = Callable[[str, Any], str | None]

_KINDS: dict[str, _Make] = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "json_object": _object,
}
_FIELDS: dict[str, _Make] = {
    "response_format": _response_format,
    "structured_outputs": _structured,
    "guided_json": _json,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
    "json_schema": _json,
    "grammar": _grammar,
}
