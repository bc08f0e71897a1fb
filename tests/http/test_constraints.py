"""The fields that constrain an answer, and the grammars they come to."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from falcon.testing import ASGIConductor
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from basert.schema.constraints import _FIELDS
from tests.http.fakes import FakeModels

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
BYTES = LLTokenizer("byte")


def grammar(field: str, value: Any) -> str:
    text = _FIELDS[field](field, value)
    assert text is not None
    assert not LLMatcher.validate_grammar(text, BYTES)
    return text


def accepts(text: str, answer: str) -> bool:
    """Whether this, whole, is an answer that the grammar allows."""
    matcher = LLMatcher(BYTES, text)
    raw = list(answer.encode())
    return matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}),
        ("response_format", {"type": "json_schema", "schema": SCHEMA}),
        ("response_format", {"type": "json_object", "schema": SCHEMA}),
        ("structured_outputs", {"json": SCHEMA, "regex": None}),
        ("structured_outputs", {"json": json.dumps(SCHEMA)}),
        ("guided_json", SCHEMA),
        ("guided_json", json.dumps(SCHEMA)),
        ("json_schema", SCHEMA),
    ],
)
def test_every_way_to_send_a_schema_means_the_same(field: str, value: Any) -> None:
    text = grammar(field, value)
    assert accepts(text, '{"a":1}')
    assert accepts(text, '{"a": 1}')
    assert accepts(text, '{\n  "a": 1\n}')
    assert not accepts(text, '{"a": "1"}')
    assert not accepts(text, "{}")
    assert not accepts(text, '{"a":  1}')  # whitespace is bounded


def test_json_object_is_any_object() -> None:
    for text in (
        grammar("response_format", {"type": "json_object"}),
        grammar("structured_outputs", {"json_object": True}),
    ):
        assert accepts(text, '{"x": [1, {"y": null}]}')
        assert not accepts(text, "[]")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a/b+", "a/bb", "ab"),
        (r"a\/b", "a/b", "a"),
        ("^[a-z]{2}$", "ab", "abc"),
        (r"cost: \$", "cost: $", "cost: "),
        (r"a\\$", "a\\", "a"),
        ("a\nb", "a\nb", "a b"),
        ("yes|no", "no", "maybe"),
        ("é+", "éé", "e"),
    ],
)
def test_regular_expressions_match_the_whole_answer(pattern: str, yes: str, no: str) -> None:
    text = grammar("guided_regex", pattern)
    assert re.fullmatch(pattern, yes)
    assert accepts(text, yes)
    assert not accepts(text, no)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=5))
def test_choices_are_taken_to_the_letter(choices: list[str]) -> None:
    text = grammar("guided_choice", choices)
    for choice in choices:
        assert accepts(text, choice)
    assert not accepts(text, "".join(choices) + "!")


@pytest.mark.parametrize(
    "text",
    ['start: "a"', '\n\n  start[capture]: "a"', '%llguidance {}\nstart: "a"', '// ::=\nstart: "a" | "::="'],
)
def test_lark_is_told_from_gbnf(text: str) -> None:
    assert accepts(grammar("grammar", text), "a")


@pytest.mark.parametrize("text", ['root ::= "a"', 'root ::= start\nstart ::= "start:"', "\n" * 300_000])
def test_what_is_not_lark_is_left_to_the_engine(text: str) -> None:
    assert _FIELDS["grammar"]("grammar", text + "x") == text + "x"


async def test_the_engine_gets_the_grammar_and_the_field(client: ASGIConductor, models: FakeModels) -> None:
    for field, value in [("response_format", {"type": "text"}), ("guided_choice", ["a", "b"])]:
        body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}], field: value}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    nothing, choice = (request.grammar for request in models.get("org/tiny").engine.requests)
    assert nothing is None
    assert choice is not None
    assert choice.field == "guided_choice"


async def test_completions_take_them_too(client: ASGIConductor, models: FakeModels) -> None:
    body = {"model": "org/tiny", "prompt": "hi", "grammar": 'root ::= "a"'}
    assert (await client.post("/v1/completions", json=body)).status_code == 200
    [taken] = [request.grammar for request in models.get("org/tiny").engine.requests]
    assert taken is not None
    assert taken.text == 'root ::= "a"'
