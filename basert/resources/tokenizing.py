"""POST /v1/tokenize and /v1/detokenize (also without /v1), as vLLM has them."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert import media
from basert.config import AppConfig
from basert.limits import check_prompt_text, read_body
from basert.models import Model, Models
from basert.openapi import operation
from basert.resources.chat import conversation_ids
from basert.resources.completions import token_name
from basert.resources.planning import beside, check_ids, context_of
from basert.schema.chat import template_tools
from basert.schema.others import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest
from basert.schema.parsing import parse


class Tokenize:
    def __init__(self, models: Models, config: AppConfig) -> None:
        self._models = models
        self._config = config

    @operation("Token ids of a text or a conversation.", TokenizeRequest, TokenizeAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        raw = await read_body(req, self._config)
        request = parse(raw, TokenizeRequest, max_depth=self._config.max_json_depth)
        request.check()
        model = self._models.get(request.model)
        ids = await beside(lambda: self._ids(request, model), model, len(raw))
        names = [token_name(model.text, token) for token in ids] if request.return_token_strs else None
        media.send_json(resp, TokenizeAnswer(len(ids), context_of(model), ids, names))

    def _ids(self, request: TokenizeRequest, model: Model) -> list[int]:
        if request.prompt is not None:
            check_prompt_text(request.prompt, model.text, context_of(model), self._config, "prompt")
            return model.text.encode(request.prompt, add_special=request.add_special_tokens is not False)
        return conversation_ids(
            request.messages or [],
            model,
            self._config,
            **(request.chat_template_kwargs or {}),
            tools=template_tools(request.tools),
            add_generation_prompt=request.add_generation_prompt is not False,
        )


class Detokenize:
    def __init__(self, models: Models, config: AppConfig) -> None:
        self._models = models
        self._config = config

    @operation("The text of token ids.", DetokenizeRequest, DetokenizeAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        raw = await read_body(req, self._config)
        request = parse(raw, DetokenizeRequest, max_depth=self._config.max_json_depth)
        model = self._models.get(request.model)
        check_ids(request.tokens, model.manifest.vocab_size, "tokens")
        media.send_json(resp, DetokenizeAnswer(model.text.decode(request.tokens, skip_special=False)))
