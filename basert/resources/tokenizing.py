"""POST /v1/tokenize and /v1/detokenize (also without /v1), as vLLM has them."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.http import media
from basert.http.limits import check_prompt_text
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.choosing import model_for
from basert.resources.conversation import conversation_prompt
from basert.resources.planning import beside, check_ids, context_of
from basert.resources.scores import token_name
from basert.resources.service import Service
from basert.schema.others import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest
from basert.schema.tools import tool_use


class Tokenize:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Token ids of a text or a conversation.", TokenizeRequest, TokenizeAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, TokenizeRequest)
        request.check()
        models = self._service.models
        talk = request.messages is not None
        model = model_for("generate", request.model, models) if talk else models.get(request.model)
        ids = await beside(lambda: self._ids(request, model), model, req)
        names = [token_name(model.text, token) for token in ids] if request.return_token_strs else None
        media.send_json(resp, TokenizeAnswer(len(ids), context_of(model), ids, names))

    def _ids(self, request: TokenizeRequest, model: Model) -> list[int]:
        config = self._service.config
        if request.prompt is not None:
            check_prompt_text(request.prompt, model.text, context_of(model), config, "prompt")
            return model.text.encode(request.prompt, add_special=request.add_special_tokens is not False)
        use = tool_use(request.tools, None, None)
        return conversation_prompt(
            request.messages or [],
            request.tools,
            use,
            model,
            config,
            request.template_arguments(),
            continues=bool(request.continue_final_message),
        )[0]


class Detokenize:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("The text of token ids.", DetokenizeRequest, DetokenizeAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, DetokenizeRequest)
        model = self._service.models.get(request.model)
        check_ids(request.tokens, model.manifest.vocab_size, "tokens")
        media.send_json(resp, DetokenizeAnswer(model.text.decode(request.tokens, skip_special=False)))
