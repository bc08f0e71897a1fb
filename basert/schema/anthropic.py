"""POST /v1/messages as Anthropic has it: the request, and what it comes to as a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from basert.schema.chat import ChatRequest
from basert.schema.drawing import Fraction
from basert.schema.generation import StopString
from basert.schema.tools import NAME, Function, Tool
from basert.schema.turns import Turns

# chat's fields by the names that they have here; the first that fits counts
NAMES = {
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "continue_final_message": "messages",
    "stop": "stop_sequences",
}


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""  # the model's thoughts are signed by nobody here


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """Another server's, and nothing that can be read."""

    data: str = ""


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


Block = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock


class InputMessage(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ClientTool(msgspec.Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=NAME)]
    type: Literal["custom"] | None = None
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class ToolChoice(msgspec.Struct, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def to_chat(self) -> Any:
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name or ""}}
        return "required" if self.type == "any" else self.type


class Thinking(msgspec.Struct, kw_only=True):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int | None, Meta(description="Has no effect.")] = None


class OutputConfig(msgspec.Struct, kw_only=True):
    effort: str | None = None
    format: Any = None


class CountRequest(msgspec.Struct, kw_only=True):
    """What makes the prompt. Null means absent everywhere, and unknown fields are ignored."""

    model: str | None = None
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    def to_chat(self) -> ChatRequest:
        """As chat would be asked."""
        tools = [
            Tool(Function(one.name, one.description, one.input_schema, one.strict))
            for one in self.tools or []
        ]
        choice, config = self.tool_choice, self.output_config or OutputConfig()
        idle = not tools and choice is not None and choice.type in ("auto", "none")
        return ChatRequest(
            model=self.model,
            messages=messages_of(self.system, self.messages),
            tools=tools or None,
            tool_choice=None if choice is None or idle else choice.to_chat(),
            parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
            response_format=config.format,
            reasoning_effort=config.effort,
            chat_template_kwargs=_thinking(self.thinking),
            continue_final_message=True if self.messages[-1].role == "assistant" else None,
        )


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    stop_sequences: Annotated[list[StopString], Meta(max_length=64)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 and -1 switch it off.")] | None = None
    metadata: dict[str, Any] | None = None

    def to_chat(self) -> ChatRequest:
        return msgspec.structs.replace(
            super().to_chat(),
            stop=self.stop_sequences,
            stream=self.stream,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )


def _thinking(asked: Thinking | None) -> dict[str, Any] | None:
    """The switch, by the names that chat templates know it; they are silent where the request is."""
    if asked is None:
        return None
    return dict.fromkeys(("enable_thinking", "thinking"), asked.type != "disabled")


def messages_of(system: str | list[TextBlock] | None, messages: Sequence[InputMessage]) -> list[Any]:
    """The conversation as chat has it. Several messages of one role in a row are one."""
    turns = Turns()
    if texts := _texts(system):
        turns.system(texts)
    for message in messages:
        if message.role == "system":
            turns.system(_texts(message.content))
        elif isinstance(message.content, str):
            _speak(message.role, [TextBlock(message.content)], turns)
        else:
            _speak(message.role, message.content, turns)
    return turns.messages()


def _speak(role: str, blocks: Sequence[Block], turns: Turns) -> None:
    for block in blocks:
        match block:
            case TextBlock(text) if role == "user":
                turns.user([text], goes_on=True)
            case TextBlock(text):
                turns.says([text])
            case ThinkingBlock(thinking):
                turns.thinks(thinking)
            case ToolUseBlock(id=call, name=name, input=arguments):
                turns.calls(call, name, msgspec.json.encode(arguments).decode())
            case ToolResultBlock(tool_use_id=call, content=content):
                turns.tool(call, _texts(content) or [""])


def _texts(content: str | Sequence[Block] | None) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [block.text for block in content or () if isinstance(block, TextBlock)]
