"""What a stream of /v1/responses says: one struct per event, tagged with the event's name."""

from __future__ import annotations

import msgspec

from basert.schema.chat import TokenLogprob
from basert.schema.response_items import Item, OutputText, ReasoningText
from basert.schema.response_object import ResponseObject


class Event(msgspec.Struct, tag_field="type", kw_only=True):
    sequence_number: int = 0  # the writer counts


class _ResponseEvent(Event, kw_only=True):
    response: ResponseObject


class Created(_ResponseEvent, tag="response.created"):
    pass


class InProgress(_ResponseEvent, tag="response.in_progress"):
    pass


class Completed(_ResponseEvent, tag="response.completed"):
    pass


class Incomplete(_ResponseEvent, tag="response.incomplete"):
    pass


class Failed(_ResponseEvent, tag="response.failed"):
    pass


class _ItemEvent(Event, kw_only=True):
    output_index: int
    item: Item


class ItemAdded(_ItemEvent, tag="response.output_item.added"):
    pass


class ItemDone(_ItemEvent, tag="response.output_item.done"):
    pass


class _InItem(Event, kw_only=True):
    output_index: int
    item_id: str


class _InPart(_InItem, kw_only=True):
    content_index: int = 0  # an item has one part


class _PartEvent(_InPart, kw_only=True):
    part: OutputText | ReasoningText


class PartAdded(_PartEvent, tag="response.content_part.added"):
    pass


class PartDone(_PartEvent, tag="response.content_part.done"):
    pass


class TextDelta(_InPart, tag="response.output_text.delta", kw_only=True):
    delta: str
    logprobs: list[TokenLogprob]


class TextDone(_InPart, tag="response.output_text.done", kw_only=True):
    text: str
    logprobs: list[TokenLogprob]


class ReasoningDelta(_InPart, tag="response.reasoning_text.delta", kw_only=True):
    delta: str


class ReasoningDone(_InPart, tag="response.reasoning_text.done", kw_only=True):
    text: str


class ArgumentsDelta(_InItem, tag="response.function_call_arguments.delta", kw_only=True):
    delta: str


class ArgumentsDone(_InItem, tag="response.function_call_arguments.done", kw_only=True):
    name: str
    arguments: str


ResponseEvent = (
    Created
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | TextDelta
    | TextDone
    | ReasoningDelta
    | ReasoningDone
    | ArgumentsDelta
    | ArgumentsDone
)
