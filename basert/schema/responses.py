"""POST /v1/responses: the request, and what it comes to as a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.chat import ChatRequest
from basert.schema.drawing import DrawingFields
from basert.schema.extras import Unsupported
from basert.schema.parsing import given
from basert.schema.response_items import Item, messages_of
from basert.schema.tools import NAME, Function, Tool

LOGPROBS = "message.output_text.logprobs"
# chat's fields by the names that they have here; the first that fits counts
NAMES = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "messages": "input",
}
_REFUSED = {
    "background": "A response is answered at once and cannot be left to the background",
    "conversation": "Conversations are not kept; send 'previous_response_id' or the items themselves",
    "prompt": "Prompt templates are not supported",
}

ShortName = Annotated[str, Meta(max_length=64)]
ShortText = Annotated[str, Meta(max_length=512)]


class ResponseTool(msgspec.Struct, tag_field="type", tag="function", kw_only=True):
    name: Annotated[str, Meta(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ReasoningOptions(msgspec.Struct, kw_only=True):
    effort: str | None = None
    summary: str | None = None


class TextOptions(msgspec.Struct, kw_only=True):
    format: Any = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesRequest(DrawingFields, kw_only=True):
    """Null means absent everywhere, and unknown fields are ignored."""

    model: str | None = None
    input: Annotated[
        str | list[dict[str, Any]] | None,
        Meta(description="A text, or items: message, function_call, function_call_output, reasoning."),
    ] = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: Annotated[list[str], Meta(description=f'Only "{LOGPROBS}" adds anything.')] | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[ShortName, ShortText], Meta(max_length=16)] | None = None
    user: str | None = None
    background: Unsupported = None
    conversation: Unsupported = None
    prompt: Unsupported = None

    def check(self) -> None:
        """What no single field shows. Raises InvalidRequest."""
        for field, why in _REFUSED.items():
            if given(getattr(self, field)):
                raise InvalidRequest(f"{why}; leave '{field}' out.", param=field)

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or LOGPROBS in (self.include or [])

    def to_chat(self, items: Sequence[Item]) -> ChatRequest:
        """As chat would be asked; items: the whole input. Raises InvalidRequest."""
        tools = [
            Tool(Function(one.name, one.description, one.parameters, one.strict)) for one in self.tools or []
        ]
        return ChatRequest(
            model=self.model,
            messages=messages_of(self.instructions, items),
            max_completion_tokens=self.max_output_tokens,
            **self.drawing(),
            logprobs=self.wants_logprobs or None,
            top_logprobs=self.top_logprobs if self.wants_logprobs else None,
            tools=tools or None,
            tool_choice=chat_choice(self.tool_choice, some=bool(tools)),
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=None if self.text is None else self.text.format,
            reasoning_effort=None if self.reasoning is None else self.reasoning.effort,
            user=self.user,
        )


def chat_choice(choice: Any, *, some: bool) -> Any:
    """`tool_choice` as chat has it. some: there are tools, without which a mere mode says nothing."""
    match choice:
        case "auto" | "none" if not some:
            return None
        case {"type": "allowed_tools", "mode": mode, "tools": tools}:
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
    return choice
