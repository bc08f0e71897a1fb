"""Anthropic's wire form: a message of content blocks, plain or as the events in which it comes about."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from basert.errors import BasertError
from basert.resources.blocks import BlockWriter
from basert.schema import anthropic_answers as answers
from basert.schema.anthropic import TextBlock, ThinkingBlock, ToolUseBlock
from basert.schema.anthropic_answers import ContentBlock, OutputMessage, StopReason
from basert.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage
from basert.text.parts import CallStart, Part, Text, Thought
from basert.text.streaming import Piece


class MessageWriter(BlockWriter):
    def __init__(self, model: str, request_id: str, prompt_tokens: int, *, shortened: bool) -> None:
        """shortened: the context has no room for all the tokens that were asked for."""
        super().__init__()
        self._message = OutputMessage(
            id=f"msg_{uuid.uuid4().hex}",
            model=model,
            content=[],
            usage=answers.message_usage(_nothing_yet(prompt_tokens)),
        )
        self._request_id = request_id
        self._shortened = shortened
        self._index = 0
        self._called = False
        self._block: ContentBlock = TextBlock("")
        self._texts: list[str] = []  # of the open block

    def begun(self, piece: Piece) -> Iterator[Any]:
        usage = self._message.usage
        usage.input_tokens -= piece.cached
        usage.cache_read_input_tokens += piece.cached
        yield answers.MessageStart(self._message)
        yield answers.Ping()

    def opened(self, part: Part) -> Iterator[Any]:
        self._block, self._texts = _empty(part), []
        self._called |= isinstance(part, CallStart)
        yield answers.BlockStart(self._index, self._block)

    def added(self, text: str) -> Iterator[Any]:
        self._texts.append(text)
        delta: Any = answers.TextDelta(text)
        if isinstance(self.open, Thought):
            delta = answers.ThinkingDelta(text)
        elif not isinstance(self.open, Text):
            delta = answers.InputDelta(text)
        yield answers.BlockDelta(self._index, delta)

    def closed(self, *, whole: bool) -> Iterator[Any]:
        """A call that was cut off, and may look whole, is left out of the plain answer."""
        if (block := _filled(self._block, "".join(self._texts), whole=whole)) is not None:
            self._message.content.append(block)
        yield answers.BlockStop(self._index)
        self._index += 1

    def last_events(self, usage: Usage) -> Iterator[Any]:
        message = self.answer(usage)
        assert message.stop_reason is not None
        yield answers.MessageDelta(
            answers.Ending(message.stop_reason, message.stop_sequence), usage=message.usage
        )
        yield answers.MessageStop()

    def failed(self, error: BasertError) -> Iterator[Any]:
        yield answers.anthropic_error(error, self._request_id)

    def answer(self, usage: Usage) -> OutputMessage:
        return msgspec.structs.replace(
            self._message,
            stop_reason=self._reason(),
            stop_sequence=self.stop if isinstance(self.stop, str) else None,
            usage=answers.message_usage(usage),
        )

    def _reason(self) -> StopReason:
        if self.finish == "length":
            return "model_context_window_exceeded" if self._shortened else "max_tokens"
        if isinstance(self.stop, str):
            return "stop_sequence"
        return "tool_use" if self._called else "end_turn"


def _nothing_yet(prompt: int) -> Usage:
    return Usage(prompt, 0, prompt, PromptTokensDetails(0), CompletionTokensDetails(0))


def _empty(part: Part) -> ContentBlock:
    match part:
        case CallStart(_, name):
            return ToolUseBlock(f"toolu_{uuid.uuid4().hex[:24]}", name, {})
        case Thought():
            return ThinkingBlock("")
    return TextBlock("")


def _filled(block: ContentBlock, text: str, *, whole: bool) -> ContentBlock | None:
    match block:
        case TextBlock():
            return TextBlock(text)
        case ThinkingBlock():
            return ThinkingBlock(text)
    arguments = _object(text or "{}") if whole else None
    return None if arguments is None else ToolUseBlock(block.id, block.name, arguments)


def _object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
