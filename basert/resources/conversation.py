"""A chat request to what an engine needs of it: the prompt, and how answers are read and held to their form.

What a model writes its thoughts and tool calls in is told by its chat template, or by flags.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from basert.config import AppConfig
from basert.errors import InvalidRequest
from basert.http.limits import check_prompt_text
from basert.http.models import Model
from basert.messages import Grammar
from basert.reasoning import formats as thoughts
from basert.reasoning.format import ThinkFormat
from basert.resources.planning import context_of, kept
from basert.schema.chat import ChatRequest, Message
from basert.schema.constraints import limited
from basert.schema.json_schemas import known_formats
from basert.schema.tools import Tool, ToolUse, template_tools
from basert.text import TextModel
from basert.text.continuing import left_open
from basert.text.parts import PlainReader, Reader
from basert.tools import format as tool_format
from basert.tools import formats, generic
from basert.tools.grammar import after_thought, grammar
from basert.tools.lark import quote

TAIL = 200  # characters of a prompt's end that tell whether a thought has begun


class Conversation(NamedTuple):
    """What a chat request comes to."""

    prompt: list[int]
    reader: Callable[[], Reader]  # a fresh one for each answer
    markers: Sequence[str]  # special tokens that it has to see
    grammar: Grammar | None


class Style(NamedTuple):
    """How a model writes what is no plain text."""

    calls: tool_format.Format | None  # None: its template knows no tools
    thoughts: ThinkFormat | None


def style_of(model: TextModel, config: AppConfig) -> Style:
    """As its template has it, unless flags say otherwise."""
    template = model.template_source
    named, thinking = config.tool_format, config.reasoning_format
    calls = formats.find(template) if named == "auto" else formats.named(named)
    if thinking == "none":
        return Style(calls, None)
    return Style(calls, thoughts.find(template) if thinking == "auto" else thoughts.named(thinking))


def conversation(request: ChatRequest, model: Model, config: AppConfig) -> Conversation:
    """May take long. Raises InvalidRequest, ContextLengthExceeded."""
    style, use = style_of(model.text, config), request.tool_use
    arguments = request.template_arguments()
    prompt, tail = conversation_prompt(
        request.messages,
        request.tools,
        use,
        model,
        config,
        arguments,
        continues=bool(request.continue_final_message),
        any_length=request.truncate_prompt_tokens is not None,
    )
    prompt = kept(prompt, request, model, request.wanted_tokens)
    calls = style.calls or formats.GENERIC
    speaking = _Speaking(calls, style.thoughts, _functions(use), tail, model.text)
    return Conversation(prompt, speaking.reader, speaking.markers, speaking.grammar(request, use))


def conversation_prompt(
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    use: ToolUse,
    model: Model,
    config: AppConfig,
    arguments: Mapping[str, Any],
    *,
    continues: bool = False,
    any_length: bool = False,
) -> tuple[list[int], str]:
    """The prompt of a conversation and the end of its text. Raises InvalidRequest.

    arguments: what its template gets beside messages and tools; continues: the last message stays open;
    any_length: it may be longer than the context.
    """
    if len(messages) > config.max_messages:
        raise InvalidRequest(
            f"There are {len(messages)} messages; the most taken here is {config.max_messages}.",
            param="messages",
        )
    said = [message.to_template() for message in messages]
    described = template_tools(tools)
    if not model.text.knows_tools:
        offered = template_tools(use.tools) if use.mode != "none" else None
        said = generic.flatten(said, generic.describe(offered) if offered else "")
    given = {**arguments, "tools": described}
    render = model.text.render
    text = left_open(render, said, given) if continues else render(said, **given)
    check_prompt_text(text, model.text, sys.maxsize if any_length else context_of(model), config, "messages")
    return model.text.encode(text, add_special=False), text[-TAIL:]


def _functions(use: ToolUse) -> list[tool_format.Tool]:
    """As grammars have them. Where a call is up to the model, tools in use have keywords of all kinds."""
    functions = [tool.function for tool in use.tools]
    return [
        tool_format.Tool(
            one.name,
            known_formats(one.parameters or {"type": "object"}),
            lenient=use.mode == "auto" and not one.strict,
        )
        for one in functions
    ]


class _Speaking(NamedTuple):
    """How one answer is spoken."""

    calls: tool_format.Format
    thoughts: ThinkFormat | None
    tools: Sequence[tool_format.Tool]
    tail: str
    text: TextModel

    @property
    def _channelled(self) -> bool:
        """Whether all that is said has a form of its own, text too."""
        return isinstance(self.calls, tool_format.Channelled)

    @property
    def _reads_calls(self) -> bool:
        return bool(self.tools) or self._channelled

    @property
    def _thinks(self) -> ThinkFormat | None:
        """None where a thought cannot come, the prompt having ended it."""
        return None if self.thoughts is None or self.thoughts.closed(self.tail) else self.thoughts

    @property
    def markers(self) -> Sequence[str]:
        calls = self.calls.markers if self._reads_calls else ()
        return (*calls, *(self._thinks.markers if self._thinks else ()))

    def reader(self) -> Reader:
        inner = self.calls.reader(self.tools) if self._reads_calls else PlainReader()
        return self._thinks.reader(self.tail, inner) if self._thinks else inner

    def grammar(self, request: ChatRequest, use: ToolUse) -> Grammar | None:
        asked = request.constraint()
        opened = self.thoughts is not None and self.thoughts.opened(self.tail)
        if use.mode == "none" and (asked is None or not (self._thinks or self._channelled)):
            return asked
        if asked is not None and use.mode == "none" and self._thinks is not None:
            text = after_thought(asked.text, self._thinks, self._marker, opened=opened)
            return limited(Grammar(text, asked.field))
        text = grammar(
            self.calls,
            self.tools,
            self._marker,
            required=use.mode == "required",
            parallel=use.parallel,
            think=self._thinks,
            opened=opened,
            plain=asked.text if asked is not None else "",
        )
        return limited(Grammar(text, "tools" if self.tools or asked is None else asked.field))

    def _marker(self, text: str) -> str:
        token = self.text.marker_id(text)
        return quote(text) if token is None else f"<[{token}]>"
