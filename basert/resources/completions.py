"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence

from falcon.asgi import Request, Response
from msgspec import UNSET

from basert import schema
from basert.http.limits import check_prompt_text
from basert.http.models import Model
from basert.http.openapi import operation
from basert.messages import TokenLogprob
from basert.resources.generating import Run
from basert.resources.planning import beside, check_ids, context_of, plan
from basert.resources.responding import Answer, ChunkWriter, respond
from basert.resources.service import Service
from basert.schema.completions import (
    DEFAULT_MAX_TOKENS,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from basert.schema.generation import Usage
from basert.text import TextModel
from basert.text.streaming import Piece, Scored


class Completions:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Continue one or more texts.", CompletionRequest, Completion, chunk=Completion)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, CompletionRequest)
        request.check()
        model = self._service.models.get(request.model)
        prompts = await beside(lambda: self._prompts(request, model), model, req)
        made = plan(
            request,
            model,
            prompts,
            param="prompt",
            wanted=request.max_tokens,
            default=self._service.config.max_tokens or DEFAULT_MAX_TOKENS,
            logprobs=request.wanted_logprobs,
            prompt_logprobs=request.wanted_logprobs if request.echo else -1,
            continues=True,
            grammar=request.constraint(),
        )
        run = Run(made, model, self._service, req.context.started)
        writer = CompletionWriter(request, model, prompts)
        await respond(resp, run, writer, self._service, stream=bool(request.stream))

    def _prompts(self, request: CompletionRequest, model: Model) -> list[list[int]]:
        return [self._ids(prompt, request, model) for prompt in request.prompts]

    def _ids(self, prompt: str | list[int], request: CompletionRequest, model: Model) -> list[int]:
        """May take long. Raises InvalidRequest."""
        if isinstance(prompt, str):
            check_prompt_text(prompt, model.text, context_of(model), self._service.config, "prompt")
            return model.text.encode(prompt, add_special=request.add_special_tokens is not False)
        check_ids(prompt, model.manifest.vocab_size, "prompt")
        return prompt


class CompletionWriter(ChunkWriter):
    """Text completions' wire form."""

    def __init__(self, request: CompletionRequest, model: Model, prompts: Sequence[list[int]]) -> None:
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._build = schema.fingerprint(model.digest)
        self._text = model.text
        self._logprobs = request.logprobs is not None
        self._usage = request.include_usage
        self._prompts = prompts
        self._n = request.n or 1
        self._echoes = [self._echo(prompt) for prompt in request.prompts] if request.echo else None
        self._begun: set[int] = set()

    def chunks(self, piece: Piece) -> Iterable[Completion]:
        first = piece.index not in self._begun
        self._begun.add(piece.index)
        choice = self._choice(piece.index, piece.text, piece.scored, piece.prompt_scored, first=first)
        if choice.text or piece.finish or (choice.logprobs is not None and choice.logprobs.tokens):
            choice.finish_reason = piece.finish  # type: ignore[assignment]
            yield self._completion([choice], None if self._usage else UNSET)

    def usage_chunk(self, usage: Usage) -> Completion | None:
        return self._completion([], usage) if self._usage else None

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Completion:
        choices = []
        for index, answer in enumerate(answers):
            choice = self._choice(index, answer.text, answer.scored, answer.prompt_scored, first=True)
            choice.finish_reason = answer.finish
            choices.append(choice)
        return self._completion(choices, usage)

    def _completion(self, choices: list[CompletionChoice], usage: object) -> Completion:
        return Completion(
            self._id,
            "text_completion",
            self._created,
            self._model,
            self._build,
            choices,
            usage,  # type: ignore[arg-type]
        )

    def _choice(
        self,
        index: int,
        text: str,
        scored: Sequence[Scored],
        prompt_scored: Sequence[TokenLogprob],
        *,
        first: bool,
    ) -> CompletionChoice:
        """A choice or a part of one; with `echo` the first part begins with the prompt."""
        logprobs = CompletionLogprobs([], [], [], []) if self._logprobs else None
        echo = self._echoes[index // self._n] if self._echoes is not None else ""
        if logprobs is not None and self._echoes is not None and first:
            self._score_prompt(logprobs, self._prompts[index // self._n], prompt_scored)
        if logprobs is not None:
            for one in scored:
                self._add(logprobs, one.logprob, len(echo) + one.offset)
        return CompletionChoice(index, echo + text if first else text, logprobs)

    def _echo(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._text.decode(prompt)

    def _score_prompt(
        self, logprobs: CompletionLogprobs, prompt: list[int], scored: Sequence[TokenLogprob]
    ) -> None:
        """The prompt's tokens, of which the first follows nothing."""
        decoder = self._text.decoder(skip_special=True)
        offset = len(decoder.push(prompt[:1]))
        logprobs.tokens.append(token_name(self._text, prompt[0]))
        logprobs.token_logprobs.append(None)
        logprobs.top_logprobs.append(None)
        logprobs.text_offset.append(0)
        for one in scored:
            self._add(logprobs, one, offset)
            offset += len(decoder.push([one.id]))

    def _add(self, logprobs: CompletionLogprobs, scored: TokenLogprob, offset: int) -> None:
        """One token; its own log-probability is among the best ones' even when it is none of them."""
        best = [*scored.top, (scored.id, scored.logprob)]
        logprobs.tokens.append(token_name(self._text, scored.id))
        logprobs.token_logprobs.append(schema.finite(scored.logprob))
        named = {token_name(self._text, token): schema.finite(logprob) for token, logprob in reversed(best)}
        logprobs.top_logprobs.append(named)
        logprobs.text_offset.append(offset)


def token_name(text: TextModel, token: int) -> str:
    """A token as text; part of a character as OpenAI writes it, `bytes:\\xf0\\x9f`."""
    raw = text.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
