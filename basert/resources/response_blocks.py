"""The output items of a response and the events that tell of each: a message, thoughts, a function call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from basert.schema import response_events as events
from basert.schema.chat import TokenLogprob
from basert.schema.response_items import (
    FunctionCallItem,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Status,
    output_id,
)
from basert.schema.tools import call_id
from basert.text.parts import CallArguments, CallStart, Part, Text, Thought


class Block(Protocol):
    """One item, as it grows."""

    def opening(self) -> Iterator[events.Event]: ...

    def more(self, text: str, logprobs: Sequence[TokenLogprob]) -> events.Event: ...

    def closing(self, status: Status) -> Iterator[events.Event]: ...

    def item(self, status: Status) -> Item:
        """What it has come to."""


def block(part: Part, response: str, index: int) -> Block:
    """The item that begins with this part. index: its place in the output of this response."""
    match part:
        case Text():
            return Message(response, index)
        case Thought():
            return Thoughts(response, index)
        case CallStart(_, name):
            return Call(response, index, name)
        case CallArguments():
            raise AssertionError("a call begins with its name")


class Message:
    def __init__(self, response: str, index: int) -> None:
        self._index = index
        self._id = output_id(MessageItem, response, index)
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def opening(self) -> Iterator[events.Event]:
        empty = MessageItem(id=self._id, role="assistant", content=[], status="in_progress")
        yield events.ItemAdded(output_index=self._index, item=empty)
        yield events.PartAdded(output_index=self._index, item_id=self._id, part=OutputText(""))

    def more(self, text: str, logprobs: Sequence[TokenLogprob]) -> events.Event:
        self._texts.append(text)
        self._logprobs += logprobs
        return events.TextDelta(
            output_index=self._index, item_id=self._id, delta=text, logprobs=list(logprobs)
        )

    def closing(self, status: Status) -> Iterator[events.Event]:
        part = self._part()
        yield events.TextDone(
            output_index=self._index, item_id=self._id, text=part.text, logprobs=self._logprobs
        )
        yield events.PartDone(output_index=self._index, item_id=self._id, part=part)
        yield events.ItemDone(output_index=self._index, item=self.item(status))

    def item(self, status: Status) -> Item:
        return MessageItem(id=self._id, role="assistant", content=[self._part()], status=status)

    def _part(self) -> OutputText:
        return OutputText("".join(self._texts), logprobs=self._logprobs)


class Thoughts:
    def __init__(self, response: str, index: int) -> None:
        self._index = index
        self._id = output_id(ReasoningItem, response, index)
        self._texts: list[str] = []

    def opening(self) -> Iterator[events.Event]:
        empty = ReasoningItem(id=self._id, content=[], status="in_progress")
        yield events.ItemAdded(output_index=self._index, item=empty)
        yield events.PartAdded(output_index=self._index, item_id=self._id, part=ReasoningText(""))

    def more(self, text: str, _logprobs: Sequence[TokenLogprob]) -> events.Event:
        self._texts.append(text)
        return events.ReasoningDelta(output_index=self._index, item_id=self._id, delta=text)

    def closing(self, status: Status) -> Iterator[events.Event]:
        part = ReasoningText("".join(self._texts))
        yield events.ReasoningDone(output_index=self._index, item_id=self._id, text=part.text)
        yield events.PartDone(output_index=self._index, item_id=self._id, part=part)
        yield events.ItemDone(output_index=self._index, item=self.item(status))

    def item(self, status: Status) -> Item:
        return ReasoningItem(id=self._id, content=[ReasoningText("".join(self._texts))], status=status)


class Call:
    def __init__(self, response: str, index: int, name: str) -> None:
        self._index = index
        self._name = name
        self._id = output_id(FunctionCallItem, response, index)
        self._call_id = call_id()
        self._texts: list[str] = []

    def opening(self) -> Iterator[events.Event]:
        yield events.ItemAdded(output_index=self._index, item=self.item("in_progress"))

    def more(self, text: str, _logprobs: Sequence[TokenLogprob]) -> events.Event:
        self._texts.append(text)
        return events.ArgumentsDelta(output_index=self._index, item_id=self._id, delta=text)

    def closing(self, status: Status) -> Iterator[events.Event]:
        arguments = "".join(self._texts)
        yield events.ArgumentsDone(
            output_index=self._index, item_id=self._id, name=self._name, arguments=arguments
        )
        yield events.ItemDone(output_index=self._index, item=self.item(status))

    def item(self, status: Status) -> Item:
        return FunctionCallItem(
            id=self._id,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._texts),
            status=status,
        )
