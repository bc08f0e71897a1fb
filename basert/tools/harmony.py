"""gpt-oss: an answer is messages in channels, thoughts, text and calls alike.

    <|channel|>analysis<|message|>They ask for the weather.<|end|><|start|>assistant<|channel|>commentary
    to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>

A prompt ends in <|start|>assistant. Text in `commentary` without a recipient is meant for the user.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from basert.text.parts import Reader, Text, Thought
from basert.text.source import Malformed, Reading, ScriptReader, Source
from basert.tools.format import Marker, Tool
from basert.tools.json_call import json_arguments
from basert.tools.lark import TEXT, quote, until
from basert.tools.schemas import arguments_schema, lark_json

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = (START, CHANNEL, END, CALL, RETURN)  # of a message: its own, or the next one's beginning
_RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")
_CALL_HEAD = " to=functions."


class Harmony:
    name = "harmony"
    markers = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)
    trigger = CHANNEL
    separator = None
    whole = False

    def suits(self, template: str) -> bool:
        return CHANNEL in template and START in template and MESSAGE in template

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return ScriptReader(_read)

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        """One call: after it the models wait for its result."""
        head = f"{marker(CONSTRAIN)} {quote('json')} {marker(MESSAGE)}"
        choices = " | ".join(
            f"{quote(f'commentary{_CALL_HEAD}{tool.name} ')} {head} {lark_json(arguments_schema(tool))}"
            for tool in tools
        )
        return f"({choices}) {marker(CALL)}"

    def answer(self, tools: Sequence[Tool], marker: Marker, *, required: bool, final: str) -> str:
        """Thoughts as the model likes, then a call; if not required, words to the user and an answer, too."""
        channel, message, again = marker(CHANNEL), marker(MESSAGE), f'{marker(START)} "assistant"'
        lines = [
            f'analysis: {channel} "analysis" {message} said {again}',
            until("said", marker(END)),
            TEXT,
        ]
        if tools:
            lines.append(f"call: {channel} {self.body(tools, marker, parallel=False)}")
        if required:
            return "\n".join(["analysis* call", *lines])
        commentary = f'commentary: {channel} "commentary" {message} said {again}'
        rule = f'final: {channel} "final" {message} {final}'
        ends = "(call | final)" if tools else "final"
        return "\n".join([f"(analysis | commentary)* {ends}", *lines, commentary, rule])


def _read(source: Source) -> Reading[None]:
    """Messages, one after another; what stands between them is text."""
    recipient = yield from source.take(_CALL_HEAD)  # before the channel, now and then
    source.at -= len(recipient)
    marker = START if recipient else (yield from source.until(_ENDS, Text))
    while marker:
        if marker in (START, CHANNEL):
            marker = yield from _message(source)
        else:
            yield from source.skip()
            marker = yield from source.until(_ENDS, Text)


def _message(source: Source) -> Reading[str]:
    """One message from its header on. Answers the marker that ended it."""
    try:
        header = yield from source.whole_until([MESSAGE])
    except Malformed:
        source.at = len(source.text)  # a header that was cut off is not for the user
        return ""
    recipient = _RECIPIENT.search(header)
    if recipient:
        return (yield from _call(source, recipient[1]))
    if "analysis" not in header:
        return (yield from source.until(_ENDS, Text))
    source.thinking = True
    end = yield from source.until(_ENDS, Thought)
    source.thinking = False
    return end


def _call(source: Source, name: str) -> Reading[str]:
    yield source.start(name)
    with contextlib.suppress(Malformed):
        yield from json_arguments(source)
        yield from source.skip()
    if source.ended:
        source.at = len(source.text)
    return (yield from source.until(_ENDS, Text))
