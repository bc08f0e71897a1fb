"""Tools for models that know none."""

from __future__ import annotations

import json
from typing import Any

from basert.tools.formats import GENERIC
from basert.tools.generic import describe, flatten
from tests.text.samples import OSLO, TOOLS, read

FUNCTION = {"name": "weather", "description": "The weather.", "parameters": TOOLS[0].parameters}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "Rain.", "tool_call_id": "1"},
    {"role": "tool", "content": "Rain again.", "tool_call_id": "2"},
    {"role": "assistant", "content": "Yes."},
]


def test_the_description_lists_every_tool() -> None:
    text = describe([{"type": "function", "function": FUNCTION}])
    assert json.dumps(FUNCTION) in text
    assert '<tool_call>\n{"name":' in text


def test_calls_and_results_become_text() -> None:
    plain = flatten(MESSAGES)
    assert [message["role"] for message in plain] == ["user", "assistant", "user", "assistant"]
    assert plain[2]["content"] == (
        "<tool_response>\nRain.\n</tool_response>\n<tool_response>\nRain again.\n</tool_response>"
    )
    assert all(set(message) == {"role", "content"} for message in plain)
    said = read(GENERIC.reader(TOOLS), plain[1]["content"])
    assert said.text == "I look."
    assert [(name, json.loads(arguments)) for name, arguments in said.calls] == [OSLO, OSLO]


def test_a_call_without_words() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert flatten([message])[0]["content"].startswith("<tool_call>\n{")


def test_the_description_is_or_follows_the_system_message() -> None:
    user = {"role": "user", "content": "Hi"}
    assert flatten([user], "Tools.") == [{"role": "system", "content": "Tools."}, user]
    system = {"role": "system", "content": "Be brief."}
    assert flatten([system, user], "Tools.")[0]["content"] == "Be brief.\n\nTools."
    assert flatten([system, user]) == [system, user]
    assert system["content"] == "Be brief."
