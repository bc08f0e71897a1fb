"""Tool calls in answers: however an answer is cut, the same is said; what is no call is text."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.errors import ConfigError
from basert.text.parts import CallArguments, CallStart, Text
from basert.tools.formats import FORMATS, find, named
from tests.text.samples import OSLO, SAMPLES, TOOLS, Sample, read

each_sample = pytest.mark.parametrize(
    "sample", SAMPLES, ids=lambda sample: f"{sample.form}-{sample.answer[-24:]!r}"
)


def calls_of(calls: list[tuple[str, str]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]


@each_sample
def test_what_an_answer_says(sample: Sample) -> None:
    said = read(FORMATS[sample.form].reader(TOOLS), sample.answer)
    assert (said.text, said.thought, calls_of(said.calls)) == (sample.text, sample.thought, sample.calls)


@each_sample
def test_cut_anywhere_it_says_the_same(sample: Sample) -> None:
    form, answer = FORMATS[sample.form], sample.answer
    whole = read(form.reader(TOOLS), answer)
    assert read(form.reader(TOOLS), *answer) == whole
    for at in range(len(answer) + 1):
        assert read(form.reader(TOOLS), answer[:at], answer[at:]) == whole


@given(st.sampled_from(SAMPLES), st.lists(st.integers(0, 200), max_size=12))
def test_cut_at_random_it_says_the_same(sample: Sample, cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(sample.answer)]
    pieces = [sample.answer[start:end] for start, end in pairwise(borders)]
    form = FORMATS[sample.form]
    assert read(form.reader(TOOLS), *pieces) == read(form.reader(TOOLS), "".join(pieces))


@each_sample
def test_a_call_cut_off_stays_cut(sample: Sample) -> None:
    form = FORMATS[sample.form]
    whole = read(form.reader(TOOLS), sample.answer).calls
    for at in range(len(sample.answer)):
        calls = read(form.reader(TOOLS), sample.answer[:at]).calls
        for (name, arguments), (whole_name, whole_arguments) in zip(calls, whole, strict=False):
            assert name == whole_name
            assert whole_arguments.startswith(arguments)
            assert arguments == whole_arguments or not is_json(arguments)
        assert len(calls) <= len(whole)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("form", FORMATS)
@given(st.lists(st.text(st.sampled_from("ab {}[](),:;\"'\\<>|=/\n\u1234🌍"), max_size=20), max_size=8))
def test_text_without_triggers_is_left_as_it_is(form: str, pieces: list[str]) -> None:
    said = read(FORMATS[form].reader(TOOLS), *pieces)
    assert (said.text, said.thought, said.calls) == ("".join(pieces), "", [])


@pytest.mark.parametrize("form", FORMATS)
@given(st.data())
def test_no_text_whatever_makes_a_reader_fail(form: str, data: st.DataObject) -> None:
    samples = [sample.answer for sample in SAMPLES if sample.form == form]
    marks = [
        *FORMATS[form].markers,
        "weather",
        "city",
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        "=",
        "<function=",
        ">",
    ]
    places = st.integers(0, 150)
    slices = st.builds(lambda answer, start, end: answer[start:end], st.sampled_from(samples), places, places)
    pieces = data.draw(st.lists(slices | st.sampled_from([*marks, " ", "\n", "\\", "x", "1"]), max_size=16))
    said = read(FORMATS[form].reader(TOOLS), *pieces)
    assert said == read(FORMATS[form].reader(TOOLS), *"".join(pieces))


def test_parts_come_as_soon_as_they_can() -> None:
    reader = named("hermes").reader(TOOLS)
    assert reader.push("Look: \n<tool") == [Text("Look:")]
    assert reader.push('_call>\n{"name": "weather"') == [CallStart(0, "weather")]
    assert reader.push(', "arguments": {"ci') == [CallArguments(0, '{"ci')]
    assert reader.push('ty": "O') == [CallArguments(0, 'ty": "O')]
    assert reader.push('slo"}}\n</tool_call') == [CallArguments(0, 'slo"}')]
    assert reader.finish() == []


def test_strings_in_other_notations_come_as_they_are_written() -> None:
    reader = named("qwen3-coder").reader(TOOLS)
    assert reader.push("<tool_call>\n<function=weather>")[0] == CallStart(0, "weather")
    assert "".join(part.text for part in reader.push('\n<parameter=city>\nO"s\n<')) == '{"city":"O\\"s'


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("hermes", "<tool_call>\nnothing\n</tool_call>"),
        ("hermes", '<tool_call>{"arguments": {"city": "Oslo"}}</tool_call>'),
        ("hermes", '<tool_call>{"name": ["weather"]}</tool_call>'),
        ("granite", "<|tool_call|>[]"),
        ("llama3", '{"name": "unknown", "parameters": {}}'),
        ("pythonic", "[weather]"),
        ("mistral", "[TOOL_CALLS] please!"),
        ("gemma", "<start_function_call>weather{}<end_function_call>"),
        ("deepseek-v3", "<｜tool▁calls▁begin｜>weather"),
    ],
)
def test_what_only_looks_like_a_call_is_text(form: str, answer: str) -> None:
    said = read(FORMATS[form].reader(TOOLS), *answer)
    assert (said.text, said.calls) == (answer, [])


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("hermes", '<tool_call>{"name"'),
        ("hermes", "<tool_call>"),
        ("mistral", "[TOOL_CALLS]wea"),
        ("qwen3-coder", "<tool_call>\n<function=weather"),
    ],
)
def test_a_call_that_is_cut_before_it_has_a_name_is_nothing(form: str, answer: str) -> None:
    said = read(FORMATS[form].reader(TOOLS), *f"I look. {answer}")
    assert (said.text, said.calls) == ("I look.", [])


def test_a_call_that_goes_wrong_ends_there() -> None:
    answer = '<tool_call>{"name": "weather", "arguments": {"city": 3]} no'
    said = read(named("hermes").reader(TOOLS), answer)
    assert (said.calls, said.text) == ([("weather", '{"city": 3')], "]} no")
    assert read(named("hermes").reader(TOOLS), *answer) == said


def test_arguments_before_the_name_are_held() -> None:
    reader = named("hermes").reader(TOOLS)
    assert reader.push('<tool_call>{"arguments": {"city": "Oslo"}, ') == []
    assert reader.push('"name": "weather"') == [CallStart(0, "weather"), CallArguments(0, '{"city": "Oslo"}')]


def test_harmony_tells_when_it_thinks() -> None:
    reader = named("harmony").reader(TOOLS)
    reader.push("<|channel|>analysis<|message|>Hm")
    assert reader.thinking
    reader.push("<|end|><|start|>assistant<|channel|>final<|message|>Hi")
    assert not reader.thinking


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ '<tool_call>\\n' }}{{ tool_call | tojson }}", "hermes"),
        ("<tool_call>\\n<function=example>\\n<parameter=one>", "qwen3-coder"),
        ("<seed:tool_call>\\n<function=example>", "seed"),
        ("{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", "mistral"),
        ("{{- '[TOOL_CALLS] [' }}", "mistral-list"),
        ("'<｜tool▁calls▁begin｜>' + '```json'", "deepseek-v3"),
        ("'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'", "deepseek-v3.1"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "harmony"),
        ("respond with <|tool_call|> followed by a JSON list", "granite"),
        ("<|tool_call|>[]<|/tool_call|>", "phi4-mini"),
        ('{"name": function name, "parameters": dictionary of argument name and its value}', "llama3"),
        ("[func_name1(params_name1=params_value1), func_name2(params)]", "pythonic"),
        ("<start_function_call>call:", "gemma"),
        ("{{ message['content'] }}", None),
    ],
)
def test_the_template_tells_the_format(template: str, form: str | None) -> None:
    found = find(template)
    assert (found.name if found else None) == form


def test_a_format_by_its_name() -> None:
    assert named("hermes") is FORMATS["hermes"]
    with pytest.raises(ConfigError, match="hermes"):
        named("herms")


def test_a_call_in_every_format() -> None:
    assert {sample.form for sample in SAMPLES if OSLO in sample.calls} == set(FORMATS)
