"""Thoughts: told from the answer however both are cut, whether the prompt has begun them or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.errors import ConfigError
from basert.reasoning.formats import FORMATS, find, named
from basert.text.parts import PlainReader, Reader, Text, Thought
from basert.tools.formats import named as tool_format
from tests.text.samples import OSLO, TOOLS, read

THINK = named("think")
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def reader(form: str = "think", prompt: str = "<|im_start|>assistant\n") -> Reader:
    return named(form).reader(prompt, PlainReader())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_and_an_answer(form: str, opened: bool) -> None:
    begin, end = FORMATS[form].begin, FORMATS[form].end
    answer = f"{'' if opened else begin}\nHm < {end[:3]} 3.\n{end}\n\nFour {begin} or five."
    prompt = f"assistant\n{begin}\n" if opened else "assistant\n"
    for at in range(len(answer) + 1):
        said = read(reader(form, prompt), answer[:at], answer[at:])
        assert (said.thought, said.text) == (f"Hm < {end[:3]} 3.\n", f"Four {begin} or five.")
    assert read(reader(form, prompt), *answer) == said


@given(st.lists(st.text("<think>/\n ", max_size=6)), st.booleans())
def test_cut_at_random_it_says_the_same(pieces: list[str], opened: bool) -> None:
    prompt = "<think>" if opened else ""
    assert read(reader(prompt=prompt), *pieces) == read(reader(prompt=prompt), "".join(pieces))


@given(st.lists(st.text("<think/ab\n", max_size=6)))
def test_text_without_thoughts_is_left_as_it_is(pieces: list[str]) -> None:
    assert read(reader(), *pieces).text == "".join(pieces)


@pytest.mark.parametrize("prompt", ["<think>\n\n</think>\n\n", "<｜Assistant｜></think>"])
def test_a_prompt_that_has_ended_the_thought(prompt: str) -> None:
    assert read(reader(prompt=prompt), "Fo", "ur.").text == "Four."


def test_a_thought_that_never_ends() -> None:
    said = read(reader(), "<think>\nHm, ", "let me </thi")
    assert (said.thought, said.text) == ("Hm, let me </thi", "")


def test_other_words_for_it() -> None:
    said = read(reader("granite"), "Here's my thought process: Hm. Here's my response: Four.")
    assert (said.thought, said.text) == (" Hm. ", " Four.")


def test_a_budget_of_nothing() -> None:
    said = read(reader("seed", "assistant\n<seed:think><seed:cot_budget_reflect>"), "None.</seed:think>Four.")
    assert (said.thought, said.text) == ("None.", "Four.")


def test_it_tells_when_it_thinks() -> None:
    one = reader()
    assert not one.thinking
    assert one.push("<think>") == []
    assert one.thinking
    assert one.push("\nHm") == [Thought("Hm")]
    assert one.push("</think>") == []
    assert not one.thinking
    assert one.push("\n\nFour") == [Text("Four")]
    assert reader(prompt="<think>\n").thinking


def test_calls_in_the_answer_are_read_and_those_in_the_thought_are_not() -> None:
    answer = f"<think>\nI could {CALL}\n</think>\n\n{CALL}"
    said = read(THINK.reader("", tool_format("hermes").reader(TOOLS)), *answer)
    assert said.thought == f"I could {CALL}\n"
    assert said.text == ""
    assert said.calls == [(OSLO[0], '{"city": "Oslo"}')]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ content.split('</think>')[-1] }}", "think"),
        ("[THINK]{{ thought }}[/THINK]", "mistral"),
        ("{%- set think_begin_token = '<seed:think>' -%}", "seed"),
        ("Write your thoughts after 'Here is my thought process:'", "granite"),
        ("{{ message['content'] }}", None),
    ],
)
def test_the_template_tells_the_format(template: str, form: str | None) -> None:
    found = find(template)
    assert (found.name if found else None) == form


def test_a_format_by_its_name() -> None:
    with pytest.raises(ConfigError, match="granite"):
        named("none")
