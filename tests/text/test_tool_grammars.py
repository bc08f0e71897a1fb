"""Grammars of tool calls: they allow what models write, refuse what fits no schema, and readers read it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from basert.errors import InvalidRequest
from basert.reasoning.format import ThinkFormat
from basert.reasoning.formats import FORMATS as THOUGHTS
from basert.tools.format import Tool
from basert.tools.formats import FORMATS
from basert.tools.grammar import grammar
from basert.tools.lark import quote
from tests.text.matching import Bytes
from tests.text.samples import NOW, SAMPLES, TOOLS, Said, Sample, read

MARKERS = sorted(
    {marker for form in FORMATS.values() for marker in form.markers}
    | {marker for form in THOUGHTS.values() for marker in form.markers}
)
THINK = THOUGHTS["think"]
STRICT = [sample for sample in SAMPLES if not sample.loose]
each_format = pytest.mark.parametrize("form", FORMATS)
each_sample = pytest.mark.parametrize(
    "sample", STRICT, ids=lambda sample: f"{sample.form}-{sample.answer[-24:]!r}"
)


@pytest.fixture(scope="module", params=["special", "plain"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bytes:
    return Bytes(tmp_path_factory.mktemp("bytes"), MARKERS if request.param == "special" else [])


@each_format
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(
    ("think", "opened"), [(None, False), (THINK, False), (THINK, True), (THOUGHTS["granite"], False)]
)
def test_every_grammar_is_one(
    tokenizer: Bytes, form: str, required: bool, parallel: bool, think: ThinkFormat | None, opened: bool
) -> None:
    text = grammar(
        FORMATS[form],
        TOOLS,
        tokenizer.marker,
        required=required,
        parallel=parallel,
        think=think,
        opened=opened,
    )
    assert LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(text), tokenizer.tokens) == ""


@each_sample
def test_what_models_write_is_allowed(tokenizer: Bytes, sample: Sample) -> None:
    form = FORMATS[sample.form]
    free = grammar(form, TOOLS, tokenizer.marker, required=False, parallel=True)
    forced = grammar(form, TOOLS, tokenizer.marker, required=True, parallel=True)
    single = grammar(form, TOOLS, tokenizer.marker, required=False, parallel=False)
    assert tokenizer.accepts(free, sample.answer)
    assert tokenizer.accepts(single, sample.answer.rstrip()) == (len(sample.calls) < 2)
    if not sample.text:
        assert tokenizer.accepts(forced, sample.answer.rstrip()) == bool(sample.calls)


@each_sample
def test_what_fits_no_schema_is_refused(tokenizer: Bytes, sample: Sample) -> None:
    form = FORMATS[sample.form]
    text = grammar(form, TOOLS, tokenizer.marker, required=False, parallel=True)
    for good, bad in [
        ("Oslo", "Oslo is too long a name"),
        ("city", "town"),
        ("weather", "whether"),
        ("3", '"3"'),
    ]:
        if sample.calls and good in sample.answer:
            assert not tokenizer.accepts(text, sample.answer.replace(good, bad))


RICH = Tool(
    "rich",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "number": {"type": "number", "minimum": -5, "maximum": 5},
            "flag": {"type": "boolean"},
            "object": {
                "type": "object",
                "properties": {"x": {"type": "string", "maxLength": 5}, "y": {"type": "boolean"}},
                "required": ["x"],
                "additionalProperties": False,
            },
            "list": {
                "type": "array",
                "items": {"type": "string", "maxLength": 3},
                "minItems": 1,
                "maxItems": 3,
            },
            "maybe": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, {"type": "null"}]},
            "choice": {"enum": ["x y", "<b>", "a/b"]},
            "bounded": {"type": "string", "minLength": 2, "maxLength": 6},
        },
        "required": ["number", "list", "choice"],
        "additionalProperties": False,
    },
)
FITTING = {"rich": Draft202012Validator(RICH.parameters), "now": Draft202012Validator({"maxProperties": 0})}


@each_format
@pytest.mark.parametrize("parallel", [True, False])
def test_random_answers_are_calls_that_fit_their_schemas(tokenizer: Bytes, form: str, parallel: bool) -> None:
    tools = [RICH, NOW]
    text = grammar(FORMATS[form], tools, tokenizer.marker, required=True, parallel=parallel)
    ended = 0
    for seed in range(8):
        answer, whole = tokenizer.walk(text, random.Random(seed))
        said = read(FORMATS[form].reader(tools), answer)
        if whole:
            ended += 1
            assert said.calls
            assert not said.text
            assert parallel or len(said.calls) == 1
            check(said)
    assert ended


@each_format
def test_random_answers_with_thoughts_and_text(tmp_path: Path, form: str) -> None:
    tokenizer, tools = Bytes(tmp_path, MARKERS), [RICH, NOW]
    text = grammar(FORMATS[form], tools, tokenizer.marker, required=False, parallel=True, think=THINK)
    for seed in range(12):
        answer, whole = tokenizer.walk(text, random.Random(seed))
        if whole:
            check(read(THINK.reader("", FORMATS[form].reader(tools)), answer))


def check(said: Said) -> None:
    for name, arguments in said.calls:
        FITTING[name].validate(json.loads(arguments))


@pytest.mark.parametrize("required", [True, False])
def test_thoughts_come_first(tokenizer: Bytes, required: bool) -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    thought = "Perhaps <tool_cal is, {} or not.</think>\n\n"
    may, does = (
        grammar(
            FORMATS["hermes"],
            TOOLS,
            tokenizer.marker,
            required=required,
            parallel=True,
            think=THINK,
            opened=opened,
        )
        for opened in (False, True)
    )
    assert tokenizer.accepts(may, call)
    assert tokenizer.accepts(may, f"<think>{thought}{call}")
    assert tokenizer.accepts(does, f"{thought}{call}")
    assert not tokenizer.accepts(does, call)
    assert not tokenizer.accepts(may, "<think>Never ending.")
    assert tokenizer.accepts(may, f"<think>{thought}Text.") != required


def test_a_trigger_in_a_thought_begins_no_call(tmp_path: Path) -> None:
    tokenizer = Bytes(tmp_path, [])
    text = grammar(FORMATS["hermes"], TOOLS, tokenizer.marker, required=False, parallel=True, think=THINK)
    assert tokenizer.accepts(text, "<think>A <tool_call> is not needed.</think>\n\nHello.")


SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "object", "properties": {}},
    {"properties": {"any": {}, "all": True}},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
    {"type": "object", "properties": {"a": {"type": ["string", "null"], "minLength": 1}}},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}},
    {"type": "object", "properties": {"a": {"const": "x/y"}, "b": {"enum": ["p", 1, None]}}},
    {
        "type": "object",
        "properties": {"when": {"type": "string", "format": "date"}},
        "required": ["when"],
    },
    {
        "type": "object",
        "properties": {
            "o": {"type": "object", "properties": {"s": {"type": "string"}, "l": {"type": "array"}}},
            "l": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 2},
        },
    },
]


@each_format
@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_schemas_of_all_kinds(tokenizer: Bytes, form: str, schema: dict[str, Any]) -> None:
    tools = [Tool("f", schema), Tool("g-2", {})]
    text = grammar(FORMATS[form], tools, tokenizer.marker, required=True, parallel=True)
    assert LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(text), tokenizer.tokens) == ""


@pytest.mark.parametrize(
    ("form", "schema", "why"),
    [
        ("pythonic", {"anyOf": [{"type": "object"}]}, "plain object"),
        ("gemma", {"type": "object", "properties": {}, "required": ["x"]}, "requires 'x'"),
        ("gemma", {"properties": {"a": {"type": "string", "pattern": "a+"}}}, "pattern"),
        ("qwen3-coder", {"properties": {"a": {"type": "string", "pattern": "a+"}}}, "pattern"),
    ],
)
def test_what_cannot_be_held_to_is_said(form: str, schema: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        grammar(FORMATS[form], [Tool("f", schema)], quote, required=True, parallel=True)


def test_a_real_tokenizer(smollm2_fp32: Path) -> None:
    tokens = LLTokenizer(str(smollm2_fp32 / "tokenizer.json"))
    text = grammar(FORMATS["hermes"], TOOLS, quote, required=False, parallel=True)
    matcher = LLMatcher(tokens, text, log_level=0)
    for sample in STRICT:
        if sample.form == "hermes":
            ids = tokens.tokenize_str(sample.answer)
            assert matcher.try_consume_tokens(ids) == len(ids)
            assert matcher.is_accepting()
            matcher.reset()
