"""Chat templates: what transformers renders, and an end to those that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from basert import text
from basert.errors import InvalidRequest
from basert.text.template import ChatTemplate
from tests.tiny import write_testing_bundle

MESSAGES = [
    {"role": "system", "content": 'Be <brief> & "exact", d\'accord?'},
    {"role": "user", "content": "  Hi 🌍!\n\nHow\tare you?  "},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "And now?"},
]


def render(source: str, **kwargs: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(MESSAGES, **kwargs)


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ bos_token }}{{ messages[0].role }}", "<s>system"),
        ("{{ {'b': '<ü>', 'a': [1]}|tojson }}", '{"b": "<ü>", "a": [1]}'),
        ("{{ {'a': 1}|tojson(indent=2) }}", '{\n  "a": 1\n}'),
        (
            "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role }} {% endfor %}",
            "system user ",
        ),
        ("{% generation %}{{ 'x' }}{% endgeneration %}", "x"),
        ("{{ strftime_now('%Y')|length }}", "4"),
        (
            "{% set ns = namespace(n=0) %}{% for m in [9] %}{% set ns.n = ns.n + m %}{% endfor %}{{ ns.n }}",
            "9",
        ),
        ("{{ messages|map(attribute='role')|join(',') }}", "system,user,assistant,user"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "2"),
        (
            "{{ 'a-b'.split('-')|last }}{{ 'ab'|replace('a', 'c') }}{{ ' x '.strip() }}{{ '-'.join('12') }}",
            "bcbx1-2",
        ),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ '=' ~ v }}{% endfor %}", "a=1"),
        ("{{ '%s-%d' % ('a', 2) }}{{ '{}:{:>3}'.format('b', 1) }}", "a-2b:  1"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}{{ messages[-1:]|length }}", "[1]1"),
        ("{%- for m in [[['x']]] recursive %}{{ loop(m) if m is not string else m }}{% endfor %}", "x"),
        ("{{ enable_thinking|default(true) }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue"),
    ],
)
def test_templates_see_what_transformers_gives_them(source: str, rendered: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    assert render(source) == rendered
    theirs = render_jinja_template(
        [MESSAGES], chat_template=source, bos_token="<s>", add_generation_prompt=True
    )
    assert theirs[0][0] == rendered


def test_documents_reach_the_template() -> None:
    source = "{% for one in documents %}{{ one.title }};{% endfor %}"
    assert render(source, documents=[{"title": "a"}, {"title": "b"}]) == "a;b;"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
        "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = {1: [ns.x] * 9} %}{% endfor %}",
        "{% set ns = namespace(x=2) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% set x %}{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}{% endset %}",
        "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{{ range(10 ** 9) }}",
        "{{ range(99999)|list * 99999 }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 ** 10 ** 10 }}",
        "{{ 'a'|center(10 ** 9) }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a'|indent(10 ** 9) }}",
        "{{ [1]|tojson(indent=10 ** 9) }}",
        "{{ [1]|tojson(indent='x' * 10 ** 6) }}",
        "{{ 'a'|indent('x' * 10 ** 6) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999).join(range(99999)) }}",
        "{{ range(99999)|join('a' * 99999) }}",
        "{{ (5).to_bytes(10 ** 9, 'big') }}",
        "{{ 'a'.encode().ljust(10 ** 9) }}",
        "{{ [[1]]|sum(start=[]) }}",
        "{{ lipsum(n=10 ** 6) }}",
        "{{ [1]|batch(10 ** 9, 1)|list }}",
    ],
)
def test_a_template_that_loops_or_explodes_is_stopped(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(source)
    assert caught.value.param == "messages"
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Roles must alternate!') }}", "Roles must alternate!"),
        ("{{ messages.nobody.home }}", "no attribute 'nobody'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% if", "line 1 of it is wrong"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include 'secrets' %}", "no loader"),
    ],
)
def test_what_a_template_refuses_is_told(source: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        render(source)


def test_a_long_conversation_is_within_the_budget() -> None:
    many = [{"role": "user", "content": "x" * 1000}] * 2048
    listing = (
        "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m.role] %}{% endfor %}"
    )
    source = listing + "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}"
    assert len(ChatTemplate(source, {}).render(many)) == 2048 * 1006


def test_a_bundle_without_a_template_says_what_to_use(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path)
    (bundle / "chat_template.jinja").unlink()
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        text.load(bundle).render(MESSAGES)


def test_special_tokens_come_from_the_tokenizer_config_else_from_the_manifest(tmp_path: Path) -> None:
    bundle = write_testing_bundle(tmp_path)
    (bundle / "chat_template.jinja").write_text("{{ bos_token }}|{{ eos_token }}")
    assert text.load(bundle).render(MESSAGES) == "|<|im_end|>"
    (bundle / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}')
    assert text.load(bundle).render(MESSAGES) == "<s>|</s>"
