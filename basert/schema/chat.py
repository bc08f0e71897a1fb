"""POST /v1/chat/completions: request, messages, answer and chunks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.schema.chat_extras import ChatExtras, check_continued, turn
from basert.schema.drawing import Count
from basert.schema.extras import PromptLogprobs, Unsupported
from basert.schema.generation import Usage
from basert.schema.tools import Tool, ToolCall, ToolUse, check_tools, tool_use

_REFUSED = {
    "functions": "'functions' is out of date; send 'tools'",
    "function_call": "'function_call' is out of date; send 'tool_choice'",
    "audio": "This model answers in text only",
    "web_search_options": "Web search is not supported",
}


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


Content = str | list[TextPart | RefusalPart]


class _Message(msgspec.Struct, tag_field="role", kw_only=True):
    content: Content
    name: str | None = None

    def to_template(self) -> dict[str, Any]:
        """As chat templates know it: plain data, content as one text."""
        tag = self.__struct_config__.tag
        role = "system" if tag == "developer" else tag
        message = {"role": role, "content": _text(self.content)}
        return message | ({"name": self.name} if self.name is not None else {})


class DeveloperMessage(_Message, tag="developer"):
    """OpenAI's newer name for the system's word; templates know it as `system`."""


class SystemMessage(_Message, tag="system"):
    pass


class UserMessage(_Message, tag="user"):
    pass


class AssistantMessage(_Message, tag="assistant", kw_only=True):
    content: Content | None = None  # type: ignore[assignment]  # absent beside tool calls
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None

    def to_template(self) -> dict[str, Any]:
        message = super().to_template()
        if self.content is None and self.refusal is not None:
            message["content"] = self.refusal
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.to_template() for call in self.tool_calls]
        return message


class ToolMessage(_Message, tag="tool", kw_only=True):
    tool_call_id: str

    def to_template(self) -> dict[str, Any]:
        return super().to_template() | {"tool_call_id": self.tool_call_id}


Message = DeveloperMessage | SystemMessage | UserMessage | AssistantMessage | ToolMessage


def _text(content: Content | None) -> str:
    """Several parts are several lines."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content or [])


def check_messages(messages: list[Message], tools: list[Tool] | None) -> None:
    """What the messages' types do not show. Raises InvalidRequest."""
    for number, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            said = message.content is not None or message.refusal is not None
            if not said and not message.tool_calls:
                param = f"messages[{number}].content"
                raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param)
    check_tools(tools)


class ChatRequest(ChatExtras, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Annotated[Count, Meta(description="Wins over max_tokens.")] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[
        Any, Meta(description='"auto", "none", "required", a function, or the functions that are allowed.')
    ] = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None

    def check(self) -> None:
        super().check()
        check_messages(self.messages, self.tools)
        _ = self.tool_use  # it raises
        check_continued(self.messages, self.continue_final_message, self.add_generation_prompt)
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest(
                "The 'top_logprobs' parameter is only allowed when 'logprobs' is true.", param="top_logprobs"
            )
        self.refuse(_REFUSED)

    @property
    def tool_use(self) -> ToolUse:
        """Which functions may be called, and whether one has to be."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)

    @property
    def named_tool(self) -> str | None:
        """The function that `tool_choice` names."""
        return self.tool_use.named

    @property
    def wanted_tokens(self) -> int | None:
        """Tokens asked for at most; OpenAI's newer name wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wanted_logprobs(self) -> int:
        """As basert.messages.Submit has it: -1 for none."""
        return (self.top_logprobs or 0) if self.logprobs else -1

    @property
    def echoed(self) -> str:
        """What the answer begins with by `echo`."""
        last = self.messages[-1]
        return _text(last.content) if self.echo and isinstance(last, AssistantMessage) else ""

    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given beside messages and tools. Templates have several names for
        whether to think at all."""
        effort = self.reasoning_effort
        said: dict[str, Any] = {}
        if effort is not None:
            thinks = effort != "none"
            said = {"reasoning_effort": effort, "enable_thinking": thinks, "thinking": thinks}
        return {
            **said,
            **(self.chat_template_kwargs or {}),
            **turn(self.continue_final_message, self.add_generation_prompt),
            "documents": self.documents,
        }


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct):
    content: list[TokenLogprob]
    refusal: list[TokenLogprob] | None = None


class AnswerMessage(msgspec.Struct):
    """`content` is null where there are only tool calls; thoughts and calls are there if there are any."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


Finish = Literal["stop", "length", "tool_calls"]


class ChatChoice(msgspec.Struct):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Finish
    stop_reason: str | int | UnsetType = UNSET  # the stop string or stop token id that ended it
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: Literal["default"] | UnsetType = UNSET  # to a request that names one
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class CallDelta(msgspec.Struct):
    """The first of a call has its id, type and name; later ones only more of the arguments."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Finish | None = None
    stop_reason: str | int | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct):
    """`usage` is there, null but in the last chunk, only if stream_options.include_usage asks for it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    service_tier: Literal["default"] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET  # in the first
