"""What the Responses API's inputs and outputs are lists of: messages, thoughts, calls and their results.

The same structs check what clients send and write what is answered.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from basert.errors import InvalidRequest
from basert.schema.chat import Message, TokenLogprob
from basert.schema.parsing import convert
from basert.schema.turns import Turns

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] | None = msgspec.field(default_factory=list)
    logprobs: list[TokenLogprob] | None = msgspec.field(default_factory=list)


class OutputRefusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class _Item(msgspec.Struct, tag_field="type", kw_only=True):
    id: str | None = None
    status: Status | None = "completed"


class MessageItem(_Item, tag="message", kw_only=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | OutputText | OutputRefusal]

    @property
    def texts(self) -> list[str]:
        return [self.content] if isinstance(self.content, str) else [part.text for part in self.content]

    def speak(self, turns: Turns) -> None:
        match self.role:
            case "user":
                turns.user(self.texts)
            case "assistant":
                turns.says(self.texts)
            case role:
                turns.system(self.texts, developer=role == "developer")


class FunctionCallItem(_Item, tag="function_call", kw_only=True):
    call_id: str
    name: str
    arguments: str

    def speak(self, turns: Turns) -> None:
        turns.calls(self.call_id, self.name, self.arguments)


class FunctionOutputItem(_Item, tag="function_call_output", kw_only=True):
    call_id: str
    output: str | list[InputText | OutputText]

    def speak(self, turns: Turns) -> None:
        texts = [self.output] if isinstance(self.output, str) else [part.text for part in self.output]
        turns.tool(self.call_id, texts)


class ReasoningItem(_Item, tag="reasoning", kw_only=True):
    """Thoughts. A summary stands in where a client has nothing else of them."""

    summary: list[SummaryText] | None = msgspec.field(default_factory=list)
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None

    def speak(self, turns: Turns) -> None:
        for part in self.content or self.summary or ():
            turns.thinks(part.text)


Item = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem

RESPONSE = "resp"  # what their ids begin with

_OUTPUT_ID = re.compile(r"(?:msg|rs|fc)_([0-9a-f]{48})[0-9a-f]{2,}")
_PREFIXES = {
    MessageItem: "msg",
    FunctionCallItem: "fc",
    FunctionOutputItem: "fco",
    ReasoningItem: "rs",
}


def output_id(kind: type[Item], response: str, place: int) -> str:
    """The id of a response's item, which tells where it is found."""
    return f"{_PREFIXES[kind]}_{response.partition('_')[2]}{place:02x}"


def response_of(item: str) -> str | None:
    """The response that an item came with, as its id has it."""
    match = _OUTPUT_ID.fullmatch(item)
    return None if match is None else f"{RESPONSE}_{match[1]}"


def read_items(given: str | Iterable[Mapping[str, Any]], find: Callable[[str], Item]) -> list[Item]:
    """A request's input, each item with an id. A text is a user's message. Raises InvalidRequest.

    find: gets an item that is only referred to, by its id.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_item(one, f"input[{number}]", find) for number, one in enumerate(given)]


def _item(given: Mapping[str, Any], where: str, find: Callable[[str], Item]) -> Item:
    alone = "role" not in given and "id" in given
    kind = given.get("type") or ("item_reference" if alone else "message")  # which these need not say
    if kind == "item_reference":
        return find(convert(given.get("id"), str, f"{where}.id"))
    item: Item = convert({**given, "type": kind}, Item, where)
    item.id = item.id or f"{_PREFIXES[type(item)]}_{uuid.uuid4().hex}"
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        said = OutputText if item.role == "assistant" else InputText
        item.content = [said(item.content)]
    return item


def messages_of(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """The conversation as chat has it. Raises InvalidRequest if nothing is said."""
    turns = Turns()
    for item in items:
        item.speak(turns)
    if not (messages := turns.messages()):
        raise InvalidRequest("Missing required parameter: 'input'.", param="input")
    if instructions:
        first = Turns()
        first.system([instructions])
        messages = [*first.messages(), *messages]
    return messages
