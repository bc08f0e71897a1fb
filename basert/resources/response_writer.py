"""The Responses API's wire form: a response, plain or as the events in which it comes about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from basert.errors import BasertError, Overloaded, RateLimited
from basert.http.models import Model
from basert.messages import Sampling
from basert.resources.blocks import BlockWriter
from basert.resources.responding import speaks
from basert.resources.response_blocks import Block, block
from basert.resources.scores import chat_score, escaped, namer
from basert.schema import response_events as events
from basert.schema import response_object
from basert.schema.chat import TokenLogprob
from basert.schema.generation import Usage
from basert.schema.response_items import Item, Status
from basert.schema.response_object import ResponseObject
from basert.schema.responses import ReasoningOptions, ResponsesRequest, TextOptions
from basert.text.parts import Part, Text
from basert.text.streaming import Piece, Scored


class ResponseWriter(BlockWriter):
    """keep: called with the response before its end is told."""

    def __init__(self, begun: ResponseObject, model: Model, keep: Callable[[ResponseObject], None]) -> None:
        """begun: the response as it is before anything is said."""
        super().__init__()
        self._response = begun
        self._text = model.text
        self._name = namer(escaped, model.text, as_ids=False)
        self._keep = keep
        self._items: list[Item] = []
        self._block: Block | None = None
        self._logprobs: list[TokenLogprob] = []  # of the next text
        self._number = -1

    def chunks(self, piece: Piece) -> Iterator[events.Event]:
        if piece.scored and speaks(piece, self.open):
            self._logprobs = self._scores(piece.scored)
            piece = msgspec.structs.replace(piece, parts=piece.parts or [Text("")])
        yield from map(self._numbered, super().chunks(piece))

    def begun(self, _piece: Piece) -> Iterator[events.Event]:
        yield events.Created(response=self._response)
        yield events.InProgress(response=self._response)

    def opened(self, part: Part) -> Iterator[events.Event]:
        self._block = block(part, self._response.id, len(self._items))
        return self._block.opening()

    def added(self, text: str) -> Iterator[events.Event]:
        assert self._block is not None
        logprobs: list[TokenLogprob] = []
        if isinstance(self.open, Text):
            logprobs, self._logprobs = self._logprobs, logprobs
        yield self._block.more(text, logprobs)

    def closed(self, *, whole: bool) -> Iterator[events.Event]:
        assert self._block is not None
        status: Status = "completed" if whole else "incomplete"
        yield from self._block.closing(status)
        self._items.append(self._block.item(status))

    def finished(self) -> Iterator[events.Event]:
        """An answer without a word is a message, too."""
        if not self._items:
            self.open = Text("")
            yield from self.opened(self.open)
            yield from self._close(whole=True)

    def last_events(self, usage: Usage) -> Iterator[events.Event]:
        response = self.answer(usage)
        done = events.Completed if response.status == "completed" else events.Incomplete
        yield self._numbered(done(response=response))

    def failed(self, error: BasertError) -> Iterator[events.Event]:
        if self.open is not None and self._block is not None:
            self._items.append(self._block.item("incomplete"))
        code: Any = "rate_limit_exceeded" if isinstance(error, Overloaded | RateLimited) else "server_error"
        response = self._ended(status="failed", error=response_object.Failure(code, error.message))
        if self._number < 0:
            yield from map(self._numbered, (events.Created(response=self._response),))
        yield self._numbered(events.Failed(response=response))

    def answer(self, usage: Usage) -> ResponseObject:
        told = response_object.response_usage(usage)
        if self.finish == "length":
            details = response_object.Incomplete("max_output_tokens")
            return self._ended(status="incomplete", incomplete_details=details, usage=told)
        return self._ended(status="completed", completed_at=int(time.time()), usage=told)

    def _ended(self, **changes: Any) -> ResponseObject:
        response = msgspec.structs.replace(self._response, output=self._items, **changes)
        self._keep(response)
        return response

    def _numbered(self, event: events.Event) -> events.Event:
        self._number += 1
        event.sequence_number = self._number
        return event

    def _scores(self, scored: Sequence[Scored]) -> list[TokenLogprob]:
        return [chat_score(self._text, self._name, one.logprob) for one in scored if not one.is_stop]


def begun(
    request: ResponsesRequest, name: str, model: Model, sampling: Sampling, *, stored: bool
) -> ResponseObject:
    """A response of which nothing is there yet. name: its id; sampling: how it is drawn."""
    text = request.text or TextOptions()
    return ResponseObject(
        id=name,
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        model=model.name,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        reasoning=request.reasoning or ReasoningOptions(),
        store=stored,
        temperature=sampling.temperature,
        text=TextOptions(format=text.format or {"type": "text"}, verbosity=text.verbosity),
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
    )
