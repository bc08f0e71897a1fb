"""Chat's messages out of the smaller things that other APIs have: a text, a thought, a call, a tool's result.

What an assistant thinks, says and calls in one turn is one message. Knows no API but chat's.
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.schema.chat import (
    AssistantMessage,
    Content,
    DeveloperMessage,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from basert.schema.tools import FunctionCall, ToolCall


class Turns:
    """A conversation being put together."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def system(self, texts: Sequence[str], *, developer: bool = False) -> None:
        kind = DeveloperMessage if developer else SystemMessage
        self._messages.append(kind(content=_content(texts)))

    def user(self, texts: Sequence[str], *, goes_on: bool = False) -> None:
        """goes_on: what the user has said directly before is part of the same message."""
        last = self._messages[-1] if self._messages else None
        if goes_on and isinstance(last, UserMessage):
            last.content = _content([*_texts(last.content), *texts])
        else:
            self._messages.append(UserMessage(content=_content(texts)))

    def tool(self, call: str, texts: Sequence[str]) -> None:
        """The result of a call, by its id."""
        self._messages.append(ToolMessage(content=_content(texts), tool_call_id=call))

    def thinks(self, text: str) -> None:
        turn = self._assistant()
        turn.reasoning_content = (turn.reasoning_content or "") + text

    def says(self, texts: Sequence[str]) -> None:
        turn = self._assistant()
        turn.content = _content([*_texts(turn.content), *texts])

    def calls(self, call: str, name: str, arguments: str) -> None:
        turn = self._assistant()
        turn.tool_calls = [*(turn.tool_calls or []), ToolCall(call, FunctionCall(name, arguments))]

    def messages(self) -> list[Message]:
        """All of it, but for thoughts that nothing came of."""
        return [one for one in self._messages if not _only_thinks(one)]

    def _assistant(self) -> AssistantMessage:
        last = self._messages[-1] if self._messages else None
        if isinstance(last, AssistantMessage):
            return last
        turn = AssistantMessage()
        self._messages.append(turn)
        return turn


def _only_thinks(message: Message) -> bool:
    return isinstance(message, AssistantMessage) and message.content is None and not message.tool_calls


def _content(texts: Sequence[str]) -> Content:
    return texts[0] if len(texts) == 1 else [TextPart(text) for text in texts]


def _texts(content: Content | None) -> list[str]:
    return [content] if isinstance(content, str) else [part.text for part in content or []]
