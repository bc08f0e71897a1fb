"""Tools for models whose template knows none: described in the system message, called as Hermes does.

Knows messages as templates take them (plain dicts), no wire types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from basert.tools.hermes import BEGIN, END

_RESPONSE, _RESPONSE_END = "<tool_response>", "</tool_response>"
_DESCRIPTION = """\
You may call functions to answer the user. These are the functions, each as one line of JSON:
{tools}

To call one, answer with its name and its arguments as JSON, in this form and nothing else:
{begin}
{{"name": "function-name", "arguments": {{"argument-name": "value"}}}}
{end}
What it returns comes in the next message. If no function is needed, answer in plain words."""


def describe(tools: Sequence[Mapping[str, Any]]) -> str:
    """A system text that lists the tools of a request and says how to call them."""
    lines = (json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    return _DESCRIPTION.format(tools="\n".join(lines), begin=BEGIN, end=END)


def flatten(messages: Sequence[Mapping[str, Any]], description: str = "") -> list[dict[str, Any]]:
    """Messages without tool calls and tool roles: calls and results become text in a form of their own.

    description: what `describe` says; it follows the system message, or becomes one.
    """
    plain: list[dict[str, Any]] = []
    for message in messages:
        one = _plain(message)
        if message["role"] == "tool" and plain and _holds_results(plain[-1]):
            plain[-1]["content"] += "\n" + one["content"]  # results of one turn are one message
        else:
            plain.append(one)
    return _with_system(plain, description) if description else plain


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": f"{_RESPONSE}\n{content}\n{_RESPONSE_END}"}
    if not message.get("tool_calls"):
        return dict(message)
    calls = [f"{BEGIN}\n{_call(call['function'])}\n{END}" for call in message["tool_calls"]]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join([content, *calls] if content else calls)}


def _call(function: Mapping[str, Any]) -> str:
    return json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)


def _holds_results(message: Mapping[str, Any]) -> bool:
    return message["role"] == "user" and str(message["content"]).startswith(f"{_RESPONSE}\n")


def _with_system(messages: list[dict[str, Any]], description: str) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        said = f"{messages[0]['content']}\n\n{description}"
        return [{**messages[0], "content": said}, *messages[1:]]
    return [{"role": "system", "content": description}, *messages]
