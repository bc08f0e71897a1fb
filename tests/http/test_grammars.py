"""Grammars that join a request's form with thoughts and tool calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from basert.errors import InvalidRequest
from basert.reasoning.formats import FORMATS as THOUGHTS
from basert.schema.constraints import grammar_text, json_grammar
from basert.tools.format import Tool
from basert.tools.formats import FORMATS
from basert.tools.grammar import after_thought, grammar
from basert.tools.lark import quote

BYTES = LLTokenizer("byte")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON = grammar_text(json_grammar(SCHEMA))
WORDS = grammar_text({"lark_grammar": 'start: "yes" | "no"'})
WEATHER = Tool(
    "weather", {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
THINK = THOUGHTS["think"]


def accepts(text: str, answer: str) -> bool:
    matcher = LLMatcher(BYTES, text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    raw = list(answer.encode())
    return matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()


@pytest.mark.parametrize("plain", [JSON, WORDS])
def test_a_form_holds_after_the_thought(plain: str) -> None:
    answer = '{"a": 1}' if plain == JSON else "yes"
    free = after_thought(plain, THINK, quote, opened=False)
    assert accepts(free, f"<think>\nWell, {{\n</think>\n\n{answer}")
    assert accepts(free, answer)
    assert not accepts(free, f"Well. {answer}")
    opened = after_thought(plain, THINK, quote, opened=True)
    assert accepts(opened, f"Well, {{\n</think>\n\n{answer}")
    assert not accepts(opened, answer)


@pytest.mark.parametrize("think", [None, THINK])
def test_an_answer_is_a_call_or_in_the_form(think: Any) -> None:
    made = grammar(
        FORMATS["hermes"], [WEATHER], quote, required=False, parallel=True, think=think, plain=JSON
    )
    first = "" if think is None else "<think>\nWell.\n</think>\n\n"
    assert accepts(made, first + '{"a": 1}')
    assert accepts(made, first + CALL)
    assert accepts(made, first + CALL + "\n" + CALL)
    assert not accepts(made, first + "Well.")
    assert not accepts(made, first + CALL.replace("Oslo", "Rome"))
    assert not accepts(made, first + "\n".join([CALL] * 17))


@pytest.mark.parametrize("tools", [[], [WEATHER]])
def test_channels_keep_their_form_around_a_form(tools: list[Tool]) -> None:
    form = FORMATS["harmony"]
    made = grammar(form, tools, quote, required=False, parallel=True, plain=JSON)
    thought = "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant"
    call = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>'
    assert accepts(made, thought + '<|channel|>final<|message|>{"a": 1}')
    assert not accepts(made, thought + "<|channel|>final<|message|>Well.")
    assert not accepts(made, '{"a": 1}')
    assert accepts(made, thought + call) == bool(tools)


def test_a_grammar_for_a_whole_answer_is_refused_beside_tools() -> None:
    with pytest.raises(InvalidRequest, match="Lark"):
        grammar(FORMATS["hermes"], [WEATHER], quote, required=False, parallel=True, plain='root ::= "a"')
    assert json.loads(JSON)["grammars"]
