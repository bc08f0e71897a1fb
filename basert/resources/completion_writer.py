"""Text completions' wire form: answers, chunks, and the scores that go with them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence

from msgspec import UNSET

from basert import schema
from basert.http.models import Model
from basert.messages import TokenLogprob
from basert.resources.responding import Answer, ChunkWriter
from basert.resources.scores import namer, offsets, prompt_logprobs, token_name
from basert.schema.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from basert.schema.generation import Usage
from basert.text.streaming import Piece


class CompletionWriter(ChunkWriter):
    """Makes them of pieces."""

    def __init__(self, request: CompletionRequest, model: Model, prompts: Sequence[list[int]]) -> None:
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._build = schema.fingerprint(model.digest)
        self._text = model.text
        self._request = request
        self._name = namer(token_name, model.text, as_ids=request.return_tokens_as_token_ids)
        self._usage = request.include_usage
        self._prompts = prompts
        self._n = request.n or 1
        self._echoes = self._shown(request) if request.echo else None
        self._begun: set[int] = set()

    def chunks(self, piece: Piece) -> Iterable[Completion]:
        first = piece.index not in self._begun
        self._begun.add(piece.index)
        choice = self._choice(piece.index, piece, first=first)
        scored = choice.logprobs is not None and choice.logprobs.tokens
        if choice.text or piece.finish or scored or choice.token_ids:
            yield self._completion([choice], None if self._usage else UNSET)

    def usage_chunk(self, usage: Usage) -> Completion | None:
        return self._completion([], usage) if self._usage else None

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Completion:
        drawn = self._request.drawn
        groups = [answers[at : at + drawn] for at in range(0, len(answers), drawn)]
        told = [answer for group in groups for answer in best(group, self._n)]
        choices = [self._choice(index, answer, first=True) for index, answer in enumerate(told)]
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

    def _choice(self, index: int, said: Piece | Answer, *, first: bool) -> CompletionChoice:
        """A choice or a part of one; with `echo` the first part begins with the prompt."""
        prompt = index // self._n
        echo = self._echoes[prompt] if self._echoes is not None else ""
        choice = CompletionChoice(
            index,
            echo + said.text if first else said.text,
            self._logprobs(prompt, said, echo, first=first),
            said.finish,  # type: ignore[arg-type]
            UNSET if said.stop is None else said.stop,
        )
        if self._request.prompt_logprobs is not None:
            top = self._request.prompt_logprobs
            choice.prompt_logprobs = prompt_logprobs(self._text, said.prompt_scored, top)
        if self._request.return_token_ids:
            choice.token_ids = list(said.ids)
            choice.prompt_token_ids = self._prompts[prompt] if first else UNSET
        return choice

    def _logprobs(
        self, prompt: int, said: Piece | Answer, echo: str, *, first: bool
    ) -> CompletionLogprobs | None:
        if self._request.logprobs is None:
            return None
        logprobs = CompletionLogprobs([], [], [], [])
        if self._echoes is not None and first:
            self._score_prompt(logprobs, self._prompts[prompt], echo, said.prompt_scored)
        for one in said.scored:
            self._add(logprobs, one.logprob, len(echo) + one.offset)
        return logprobs

    def _shown(self, request: CompletionRequest) -> list[str]:
        """The prompts as texts; where they are token ids or were cut, what these say."""
        cut = request.truncate_prompt_tokens is not None
        return [
            prompt if isinstance(prompt, str) and not cut else self._text.decode(ids)
            for prompt, ids in zip(request.prompts, self._prompts, strict=True)
        ]

    def _score_prompt(
        self, logprobs: CompletionLogprobs, prompt: list[int], echo: str, scored: Sequence[TokenLogprob]
    ) -> None:
        """The prompt's tokens, of which the first follows nothing."""
        starts = offsets(self._text, prompt, echo)
        logprobs.tokens.append(self._name(prompt[0]))
        logprobs.token_logprobs.append(None)
        logprobs.top_logprobs.append(None)
        logprobs.text_offset.append(0)
        for one, start in zip(scored, starts[1:], strict=True):
            self._add(logprobs, one, start)

    def _add(self, logprobs: CompletionLogprobs, scored: TokenLogprob, offset: int) -> None:
        """One token; its own log-probability is among the best ones' even when it is none of them."""
        likeliest = [*scored.top[: self._request.logprobs], (scored.id, scored.logprob)]
        logprobs.tokens.append(self._name(scored.id))
        logprobs.token_logprobs.append(schema.finite(scored.logprob))
        named = {self._name(token): schema.finite(logprob) for token, logprob in reversed(likeliest)}
        logprobs.top_logprobs.append(named)
        logprobs.text_offset.append(offset)


def best(answers: Sequence[Answer], n: int) -> list[Answer]:
    """The n likeliest, by the mean log-probability of their tokens; all of them in the order they have."""
    return list(answers) if len(answers) <= n else sorted(answers, key=_likelihood, reverse=True)[:n]


def _likelihood(answer: Answer) -> float:
    logprobs = [schema.finite(one.logprob.logprob) for one in answer.scored]
    return sum(logprobs) / len(logprobs) if logprobs else schema.LEAST_LOGPROB
