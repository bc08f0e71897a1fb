"""Schemas and grammars that are none, or too much: a 400 from every tool-call format, and soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from falcon.testing import TestClient

from basert.tools.formats import FORMATS
from tests.http.fakes import FakeModels, fake_app

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "object", "properties": 3}, ".properties"),
    ({"type": "object", "properties": {"a": 3}}, ".properties"),
    ({"type": "object", "properties": {"a": {"enum": 3}}}, ".properties.enum"),
    ({"properties": {"a": {"anyOf": 3}}}, ".properties.anyOf"),
    ({"type": "object", "required": [[1]]}, ".required[0]"),
    ({"type": "object", "required": 3}, ".required"),
    ({"type": 3}, ".type"),
    ({"type": "dict"}, ".type"),
    ({"type": "object", "properties": {"a": {"$ref": 3}}}, ".properties.$ref"),
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": 3}, ".$defs"),
    ({"type": "object", "properties": {"a": {"type": "string", "minLength": "x"}}}, ".properties.minLength"),
    ({"type": "object", "properties": {"a": {"minItems": -1}}}, ".properties.minItems"),
    ({"allOf": 3}, ".allOf"),
]
REPEATED = {"anyOf": [{"$ref": "#/$defs/a"}] * 6}
ENDLESS = [  # short, and of any size once they are spelt out
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": REPEATED}},
    {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a0"}},
        "$defs": {
            f"a{n}": {
                "type": "object",
                "properties": {f"p{m}": {"$ref": f"#/$defs/a{n + 1}"} for m in range(30)},
            }
            for n in range(6)
        }
        | {"a6": {"type": "integer"}},
    },
]


def client_of(folder: Path, **config: object) -> TestClient:
    return TestClient(fake_app(FakeModels(folder, max_context=60_000), **config))


def ask(client: TestClient, **fields: Any) -> tuple[int, Any]:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "org/tiny", "messages": messages, "max_tokens": 3} | fields
    result = client.simulate_post("/v1/chat/completions", json=body)
    return result.status_code, result.json


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_tool_whose_schema_is_none_is_refused_with_the_keyword(
    tmp_path: Path, form: str, choice: str
) -> None:
    client = client_of(tmp_path, tool_format=form)
    for parameters, keyword in WRONG:
        status, answer = ask(client, tools=[tool(parameters)], tool_choice=choice)
        assert status == 400, parameters
        assert answer["error"]["param"] == f"tools[0].function.parameters{keyword}"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("parameters", ENDLESS)
def test_a_short_schema_of_any_size_is_no_work(tmp_path: Path, form: str, parameters: dict[str, Any]) -> None:
    status, answer = ask(client_of(tmp_path, tool_format=form), tools=[tool(parameters)])
    assert status == 200 or answer["error"]["param"] == "tools"


@pytest.mark.parametrize("schema", [parameters for parameters, _ in WRONG])
def test_a_form_that_is_no_schema_is_refused(tmp_path: Path, schema: dict[str, Any]) -> None:
    client = client_of(tmp_path)
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for field, value in (("guided_json", schema), ("response_format", asked)):
        status, answer = ask(client, **{field: value})
        assert status == 400
        assert answer["error"]["param"].startswith(field)


@pytest.mark.parametrize("depth", [100, 900, 5000])
def test_a_schema_as_a_text_may_be_no_deeper_than_a_body(tmp_path: Path, depth: int) -> None:
    status, answer = ask(client_of(tmp_path), guided_json='{"items":' * depth + "{}" + "}" * depth)
    assert status == 400
    assert "nested" in answer["error"]["message"]


@pytest.mark.parametrize(
    "text", ["{", '{"grammars": 3}', '{"grammars": []}', '{"grammars": [1]}', 'root ::= "a"']
)
def test_a_grammar_that_cannot_stand_behind_a_thought_is_refused(tmp_path: Path, text: str) -> None:
    status, answer = ask(client_of(tmp_path, reasoning_format="think"), grammar=text)
    assert status == 400
    assert "Lark" in answer["error"]["message"]
