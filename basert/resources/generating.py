"""From a Plan to pieces: all choices of a request through the engine. Knows no wire form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from basert.http.models import Model
from basert.messages import Grammar, Sampling, Submit, Tokens
from basert.resources.merge import merge
from basert.resources.service import Service
from basert.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage
from basert.text.parts import PlainReader, Reader
from basert.text.streaming import Choice, Piece

Pieces = AsyncGenerator[list[Piece], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request asks of an engine. Choice i is the answer number i % n to prompt i // n."""

    prompts: Sequence[list[int]]
    max_tokens: Sequence[int]  # for each prompt
    expected: int  # tokens that all answers together are taken to have, before they have come about
    n: int
    sampling: Sampling
    stops: Sequence[str]
    stop_ids: Sequence[int]
    ignore_eos: bool
    min_tokens: int
    skip_special: bool
    include_stop: bool = False  # what ends an answer is part of it
    logprobs: int = -1
    prompt_logprobs: int = -1
    continues: bool = False  # the answer is a continuation of the prompt's text
    reader: Callable[[], Reader] = PlainReader  # tells thoughts and tool calls from text, one for each choice
    markers: Sequence[str] = ()  # the special tokens that it has to see
    grammar: Grammar | None = None  # what every answer has to look like
    allowed_ids: Sequence[int] = ()  # from here on see basert.messages.Submit
    bad_words: Sequence[list[int]] = ()
    priority: int = 0
    cache_salt: str = ""


class Run:
    """One request's way through the engine."""

    def __init__(self, plan: Plan, model: Model, service: Service, started: float) -> None:
        """started: the request's arrival, by time.perf_counter."""
        self.plan = plan
        self._model = model
        self._service = service
        self._meter = service.meter(model)
        self._started = started
        self._generated = 0
        self._cached: dict[int, int] = {}  # prompt tokens that no answer to it computed, by prompt
        self._reasoning = 0
        self._begun: set[int] = set()  # choices that have said something

    def usage(self) -> Usage:
        """So far. A prompt with several answers counts once."""
        prompts = sum(map(len, self.plan.prompts))
        return Usage(
            prompts,
            self._generated,
            prompts + self._generated,
            PromptTokensDetails(sum(self._cached.values())),
            CompletionTokensDetails(self._reasoning),
        )

    async def pieces(self) -> Pieces:
        """All choices' pieces as they come; an empty list when nothing came for the keep-alive interval.

        Raises what the engine client raises, and RequestTimeout. Closed, it cancels all choices.
        """
        tokens = sum(map(len, self.plan.prompts))
        with self._service.engaged(self._model, tokens, self._started, self.plan.expected):
            async with aclosing(self._merged()) as merged:
                async for batch in merged:
                    for piece in batch:
                        self._count(piece)
                    yield batch

    def _merged(self) -> Pieces:
        info = self._model.info
        return merge(
            [self._choice(index) for index in range(len(self.plan.prompts) * self.plan.n)],
            at_once=info.slots if info is not None else self._model.manifest.slots,
            idle=self._service.config.keep_alive_interval,
            timeout=self._service.seconds_left(self._started),
            error=self._service.took_too_long(),
        )

    async def _choice(self, index: int) -> AsyncGenerator[Piece, None]:
        plan = self.plan
        choice = Choice(
            index,
            self._model.text,
            stops=plan.stops,
            stop_ids=plan.stop_ids,
            include_stop=plan.include_stop,
            min_tokens=plan.min_tokens,
            skip_special=plan.skip_special,
            continues=plan.continues,
            reader=plan.reader(),
            markers=plan.markers,
        )
        since, first = self._started, True
        async with aclosing(self._steps(index)) as steps:
            async for step in steps:
                since, first = self._meter.step(len(step.tokens), since, first=first), False
                piece = choice.push(step)
                yield piece
                if piece.finish:
                    return

    def _steps(self, index: int) -> AsyncGenerator[Tokens, None]:
        plan = self.plan
        prompt, answer = divmod(index, plan.n)
        seed = (plan.sampling.seed + answer) % 2**64
        request = Submit(
            id=0,
            prompt=plan.prompts[prompt],
            max_tokens=plan.max_tokens[prompt],
            sampling=msgspec.structs.replace(plan.sampling, seed=seed),
            stop_ids=list(plan.stop_ids),
            ignore_eos=plan.ignore_eos,
            min_tokens=plan.min_tokens,
            logprobs=plan.logprobs,
            prompt_logprobs=plan.prompt_logprobs,
            grammar=plan.grammar,
            priority=plan.priority,
            allowed_ids=list(plan.allowed_ids),
            bad_words=list(plan.bad_words),
            cache_salt=plan.cache_salt,
            adapter=self._model.adapter,
        )
        return self._model.engine.generate(request)

    def _count(self, piece: Piece) -> None:
        self._generated += piece.tokens
        self._reasoning += piece.reasoning
        prompt = piece.index // self.plan.n
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            self._cached[prompt] = min(piece.cached, self._cached.get(prompt, piece.cached))
