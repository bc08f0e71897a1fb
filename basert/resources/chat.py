"""POST /v1/chat/completions."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from falcon.asgi import Request, Response
from msgspec import UNSET

from basert import schema
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.chat_extras import WithExtras
from basert.resources.choosing import model_for
from basert.resources.conversation import conversation
from basert.resources.generating import Run
from basert.resources.planning import beside, plan
from basert.resources.responding import Answer, ChunkWriter, Counting, respond
from basert.resources.scores import chat_score, escaped, namer
from basert.resources.service import Service
from basert.schema import chat
from basert.schema.chat import ChatRequest, Delta
from basert.schema.generation import Usage
from basert.schema.tools import call_id, tool_call
from basert.text.parts import CallArguments, CallStart, Part, Text, Thought
from basert.text.streaming import Piece, Scored


class ChatCompletions:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Answer a conversation.", ChatRequest, chat.ChatCompletion, chunk=chat.ChatChunk)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, ChatRequest)
        request.check()
        model = model_for("generate", request.model, self._service.models)
        run = await run_of(request, model, self._service, req)
        writer: ChunkWriter = WithExtras(ChatWriter(request, model), request, model, run.plan.prompts[0])
        writer = Counting(writer, run) if request.continuous_usage else writer
        await respond(resp, run, writer, self._service, stream=bool(request.stream))


async def run_of(
    request: ChatRequest, model: Model, service: Service, req: Request, *, at_most: int | None = None
) -> Run:
    """A checked conversation, planned and not begun. Raises InvalidRequest.

    at_most: tokens to generate, or fewer where the context has no room for them.
    """
    said = await beside(lambda: conversation(request, model, service.config), model, req)
    made = plan(
        request,
        model,
        [said.prompt],
        param="messages",
        wanted=request.wanted_tokens,
        default=service.config.max_tokens if at_most is None else at_most,
        logprobs=request.wanted_logprobs,
        continues=bool(request.continue_final_message),
        grammar=said.grammar,
    )
    made = dataclasses.replace(made, reader=said.reader, markers=said.markers)
    return Run(made, model, service, req.context.started)


class ChatWriter(ChunkWriter):
    """Chat's wire form."""

    def __init__(self, request: ChatRequest, model: Model) -> None:
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._build = schema.fingerprint(model.digest)
        self._text = model.text
        self._name = namer(escaped, model.text, as_ids=request.return_tokens_as_token_ids)
        self._logprobs = bool(request.logprobs)
        self._usage = request.include_usage
        self._called = "stop" if request.named_tool else "tool_calls"  # how an answer with calls finishes
        self._begun: set[int] = set()
        self._calling: set[int] = set()

    def chunks(self, piece: Piece) -> Iterable[chat.ChatChunk]:
        index = piece.index
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(chat.ChunkChoice(index, Delta(role="assistant", content="")))
        logprobs = self._scores(piece.scored)
        for part in piece.parts or ([Text("")] if logprobs is not None and logprobs.content else []):
            if isinstance(part, CallStart):
                self._calling.add(index)
            yield self._chunk(chat.ChunkChoice(index, _delta(part), logprobs))
            logprobs = None if logprobs is None else chat.ChoiceLogprobs([])
        if piece.finish:
            finish = self._finish(piece.finish, called=index in self._calling)
            yield self._chunk(chat.ChunkChoice(index, Delta(), finish_reason=finish))

    def _finish(self, finish: str, *, called: bool) -> Any:
        return self._called if called and finish == "stop" else finish

    def usage_chunk(self, usage: Usage) -> chat.ChatChunk | None:
        if not self._usage:
            return None
        chunk = self._chunk()
        chunk.usage = usage
        return chunk

    def whole(self, answers: Sequence[Answer], usage: Usage) -> chat.ChatCompletion:
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        return chat.ChatCompletion(
            self._id, "chat.completion", self._created, self._model, self._build, choices, usage
        )

    def _choice(self, index: int, answer: Answer) -> chat.ChatChoice:
        calls = answer.calls
        message = chat.AnswerMessage(
            "assistant",
            answer.text or (None if calls else ""),
            reasoning_content=answer.thoughts or UNSET,
            tool_calls=[tool_call(call.name, call.arguments) for call in calls] or UNSET,
        )
        finish = self._finish(answer.finish, called=bool(calls))
        return chat.ChatChoice(index, message, self._scores(answer.scored), finish)

    def _chunk(self, *choices: chat.ChunkChoice) -> chat.ChatChunk:
        return chat.ChatChunk(
            self._id,
            "chat.completion.chunk",
            self._created,
            self._model,
            self._build,
            list(choices),
            None if self._usage else UNSET,
        )

    def _scores(self, scored: Sequence[Scored]) -> chat.ChoiceLogprobs | None:
        """Of the text's tokens; the one that ended it is not part of it."""
        if not self._logprobs:
            return None
        return chat.ChoiceLogprobs(
            [chat_score(self._text, self._name, one.logprob) for one in scored if not one.is_stop]
        )


def _delta(part: Part) -> Delta:
    match part:
        case Text(text):
            return Delta(content=text)
        case Thought(text):
            return Delta(reasoning_content=text)
        case CallStart(index, name):
            function = chat.FunctionDelta("", name)
            return Delta(tool_calls=[chat.CallDelta(index, function, call_id(), "function")])
        case CallArguments(index, text):
            return Delta(tool_calls=[chat.CallDelta(index, chat.FunctionDelta(text))])
