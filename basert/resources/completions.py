"""POST /v1/completions."""

from __future__ import annotations

import sys

from falcon.asgi import Request, Response

from basert.errors import InvalidRequest
from basert.http.limits import check_prompt_text
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.choosing import model_for
from basert.resources.completion_writer import CompletionWriter
from basert.resources.generating import Run
from basert.resources.planning import beside, check_ids, context_of, kept, plan
from basert.resources.responding import ChunkWriter, Counting, respond
from basert.resources.service import Service
from basert.schema.completions import DEFAULT_MAX_TOKENS, Completion, CompletionRequest


class Completions:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Continue one or more texts.", CompletionRequest, Completion, chunk=Completion)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, CompletionRequest)
        request.check()
        model = model_for("generate", request.model, self._service.models)
        prompts = await beside(lambda: self._prompts(request, model), model, req)
        made = plan(
            request,
            model,
            prompts,
            param="prompt",
            wanted=request.wanted_tokens,
            default=None if request.unlimited else self._service.config.max_tokens or DEFAULT_MAX_TOKENS,
            logprobs=request.drawn_logprobs,
            prompt_logprobs=request.wanted_logprobs if request.echo else -1,
            continues=True,
            grammar=request.constraint(),
            n=request.drawn,
        )
        run = Run(made, model, self._service, req.context.started)
        writer: ChunkWriter = CompletionWriter(request, model, prompts)
        writer = Counting(writer, run) if request.continuous_usage else writer
        await respond(resp, run, writer, self._service, stream=bool(request.stream))

    def _prompts(self, request: CompletionRequest, model: Model) -> list[list[int]]:
        """May take long. Raises InvalidRequest."""
        prompts = [self._ids(prompt, request, model) for prompt in request.prompts]
        prompts = [kept(prompt, request, model, request.wanted_tokens) for prompt in prompts]
        return [_around_hole(one, request, model) for one in prompts] if request.suffix else prompts

    def _ids(self, prompt: str | list[int], request: CompletionRequest, model: Model) -> list[int]:
        if isinstance(prompt, str):
            context = context_of(model) if request.truncate_prompt_tokens is None else sys.maxsize
            check_prompt_text(prompt, model.text, context, self._service.config, "prompt")
            return model.text.encode(prompt, add_special=request.adds_special and not request.suffix)
        check_ids(prompt, model.manifest.vocab_size, "prompt")
        return prompt


def _around_hole(prompt: list[int], request: CompletionRequest, model: Model) -> list[int]:
    """The prompt of an answer between two texts, for a model that was trained on such."""
    before = model.text.encode("") if request.adds_special else []
    ids = model.text.infill(prompt, request.suffix or "")
    if ids is None:
        raise InvalidRequest(
            "This model cannot insert text: its tokenizer has no infill tokens; leave 'suffix' out.",
            param="suffix",
        )
    return before + ids
