"""Tools in a request and calls in an answer: the functions a model may call, and which of them it has to."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.json_schemas import check_schema


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str

    def to_template(self) -> dict[str, Any]:
        """Templates expect the arguments as an object."""
        try:
            arguments = msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            arguments = self.arguments
        return {"name": self.name, "arguments": arguments}


class ToolCall(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"

    def to_template(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, "function": self.function.to_template()}


def call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def tool_call(name: str, arguments: str) -> ToolCall:
    """A call of the model's, with an id of its own."""
    return ToolCall(call_id(), FunctionCall(name, arguments))


NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
MOST_TOOLS = 128


class Function(msgspec.Struct):
    name: Annotated[str, Meta(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    function: Function
    type: Literal["function"] = "function"


def template_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]] | None:
    """As plain data, without what was not said."""
    if not tools:
        return None
    functions = [msgspec.structs.asdict(tool.function) for tool in tools]
    return [
        {"type": "function", "function": {key: value for key, value in one.items() if value is not None}}
        for one in functions
    ]


def check_tools(tools: Sequence[Tool] | None) -> None:
    """What the tools' types do not show. Raises InvalidRequest."""
    if tools is None:
        return
    if not tools:
        raise InvalidRequest("Invalid 'tools': [] is too short; leave it out to have none.", param="tools")
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"Invalid 'tools': more than {MOST_TOOLS}.", param="tools")
    names = [tool.function.name for tool in tools]
    for number, tool in enumerate(tools):
        if names.index(tool.function.name) != number:
            param = f"tools[{number}].function.name"
            raise InvalidRequest(f"Invalid '{param}': {tool.function.name!r} is there twice.", param=param)
        check_schema(tool.function.parameters or {}, f"tools[{number}].function.parameters")


class ToolUse(NamedTuple):
    """What a request says of its tools."""

    mode: Literal["none", "auto", "required"]
    tools: Sequence[Tool]  # those that may be called
    parallel: bool  # several calls are possible
    named: str | None = None  # the one function that has to be called


def tool_use(tools: Sequence[Tool] | None, choice: Any, parallel: bool | None) -> ToolUse:
    """From `tools`, `tool_choice` and `parallel_tool_calls`. Raises InvalidRequest."""
    if not tools:
        if choice is not None and choice != "none":
            raise InvalidRequest(
                "The 'tool_choice' parameter is only allowed when 'tools' are specified.", param="tool_choice"
            )
        return ToolUse("none", [], False)
    several = parallel is not False
    match choice:
        case None | "auto":
            return ToolUse("auto", tools, several)
        case "none":
            return ToolUse("none", [], False)
        case "required":
            return ToolUse("required", tools, several)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return ToolUse("required", _named(tools, [name]), False, name)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(some)},
        }:
            return ToolUse(mode, _named(tools, [_name(one) for one in some]), several)
    raise InvalidRequest(
        'Invalid \'tool_choice\': expected "auto", "none", "required", a function or allowed_tools.',
        param="tool_choice",
    )


def _name(tool: Any) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise InvalidRequest("Invalid 'tool_choice': an allowed tool has no name.", param="tool_choice")


def _named(tools: Sequence[Tool], names: Sequence[str]) -> list[Tool]:
    unknown = next((name for name in names if all(tool.function.name != name for tool in tools)), None)
    if unknown is not None or not names:
        raise InvalidRequest(f"Invalid 'tool_choice': {unknown!r} is none of the tools.", param="tool_choice")
    return [tool for tool in tools if tool.function.name in names]
