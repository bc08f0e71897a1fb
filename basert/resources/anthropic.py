"""POST /v1/messages and /v1/messages/count_tokens, for clients of Anthropic's API."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.http import media
from basert.http.openapi import operation
from basert.resources.chat import run_of
from basert.resources.choosing import model_for
from basert.resources.conversation import conversation
from basert.resources.message_writer import MessageWriter
from basert.resources.planning import beside
from basert.resources.responding import respond
from basert.resources.service import Service
from basert.schema.anthropic import NAMES, CountRequest, MessagesRequest
from basert.schema.anthropic_answers import AnthropicError, MessageEvent, OutputMessage, TokenCount
from basert.schema.parsing import renamed


class Messages:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation(
        "Answer a conversation, as Anthropic's API does.",
        MessagesRequest,
        OutputMessage,
        chunk=MessageEvent,
        error=AnthropicError,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, MessagesRequest)
        with renamed(NAMES):
            asked = request.to_chat()
            asked.check()
            model = model_for("generate", request.model, self._service.models)
            run = await run_of(asked, model, self._service, req, at_most=request.max_tokens)
            (prompt,), (room,) = run.plan.prompts, run.plan.max_tokens
            shortened = room < request.max_tokens
            writer = MessageWriter(model.name, req.context.id, len(prompt), shortened=shortened)
            await respond(resp, run, writer, self._service, stream=bool(request.stream))


class CountTokens:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("The tokens of a conversation.", CountRequest, TokenCount, error=AnthropicError)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, CountRequest)
        with renamed(NAMES):
            asked = request.to_chat()
            asked.check()
            model = model_for("generate", request.model, self._service.models)
            said = await beside(lambda: conversation(asked, model, self._service.config), model, req)
        media.send_json(resp, TokenCount(len(said.prompt)))
