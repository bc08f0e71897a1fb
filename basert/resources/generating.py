"""What chat and text completions do alike: ask the engine, then stream the pieces or fold them.

A Run turns a Plan into pieces; a Writer knows one endpoint's wire form. Streaming and not streaming take the
same pieces. Knows no prompt format and no field of a request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from falcon.asgi import Response

from basert import media
from basert.config import AppConfig
from basert.errors import RequestTimeout
from basert.messages import Sampling, TokenLogprob, Tokens
from basert.metrics import Meter
from basert.models import Model, Models
from basert.resources.merge import merge
from basert.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage
from basert.text.streaming import Choice, Piece, Scored

Pieces = AsyncGenerator[list[Piece], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request asks of an engine. Choice i is the answer number i % n to prompt i // n."""

    prompts: Sequence[list[int]]
    max_tokens: Sequence[int]  # for each prompt
    n: int
    sampling: Sampling
    stops: Sequence[str]
    stop_ids: Sequence[int]
    ignore_eos: bool
    min_tokens: int
    skip_special: bool
    logprobs: int = -1
    prompt_logprobs: int = -1
    continues: bool = False  # the answer is a continuation of the prompt's text


class Run:
    """One request's way through the engine."""

    def __init__(self, plan: Plan, model: Model, meter: Meter, started: float) -> None:
        """started: the request's arrival, by time.perf_counter."""
        self.plan = plan
        self._model = model
        self._meter = meter
        self._started = started
        self._generated = 0
        self._cached = 0

    def usage(self) -> Usage:
        """So far. A prompt with several answers counts once."""
        prompts = sum(map(len, self.plan.prompts))
        return Usage(
            prompts,
            self._generated,
            prompts + self._generated,
            PromptTokensDetails(self._cached),
            CompletionTokensDetails(0),
        )

    async def pieces(self, models: Models, config: AppConfig) -> Pieces:
        """All choices' pieces as they come; an empty list when nothing came for the keep-alive interval.

        Raises what the engine client raises, and RequestTimeout. Closed, it cancels all choices.
        """
        outcome = "cancelled"
        self._meter.begin(sum(map(len, self.plan.prompts)))
        try:
            with models.open_request():
                async with aclosing(self._merged(config)) as merged:
                    async for batch in merged:
                        for piece in batch:
                            self._count(piece)
                        yield batch
            outcome = "ok"
        except Exception as error:
            told = media.as_basert_error(error)
            outcome = told.code or told.type
            raise told from None
        finally:
            self._meter.end(outcome, self._started)

    def _merged(self, config: AppConfig) -> Pieces:
        info = self._model.info
        seconds = config.request_timeout
        left = seconds - (time.perf_counter() - self._started) if seconds else None
        return merge(
            [self._choice(index) for index in range(len(self.plan.prompts) * self.plan.n)],
            at_once=info.slots if info is not None else self._model.manifest.slots,
            idle=config.keep_alive_interval,
            timeout=None if left is None else max(left, 0.001),
            error=RequestTimeout(f"The request was not done within {seconds:g} seconds."),
        )

    async def _choice(self, index: int) -> AsyncGenerator[Piece, None]:
        plan = self.plan
        choice = Choice(
            index,
            self._model.text,
            stops=plan.stops,
            min_tokens=plan.min_tokens,
            skip_special=plan.skip_special,
            continues=plan.continues,
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
        return self._model.engine.generate(
            prompt=plan.prompts[prompt],
            max_tokens=plan.max_tokens[prompt],
            sampling=msgspec.structs.replace(plan.sampling, seed=seed),
            stop_ids=plan.stop_ids,
            ignore_eos=plan.ignore_eos,
            min_tokens=plan.min_tokens,
            logprobs=plan.logprobs,
            prompt_logprobs=plan.prompt_logprobs,
        )

    def _count(self, piece: Piece) -> None:
        self._generated += piece.tokens
        if piece.index % self.plan.n == 0:
            self._cached += piece.cached


@dataclass
class Answer:
    """All pieces of one choice, folded."""

    parts: list[str] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    prompt_scored: Sequence[TokenLogprob] = ()
    finish: Any = None

    def add(self, piece: Piece) -> None:
        self.parts.append(piece.text)
        self.scored += piece.scored
        self.prompt_scored = self.prompt_scored or piece.prompt_scored
        self.finish = piece.finish

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Writer(Protocol):
    """One endpoint's wire form."""

    def chunks(self, piece: Piece) -> Iterable[Any]:
        """What a stream says of a piece; nothing while its text is held back."""

    def usage_chunk(self, usage: Usage) -> Any | None:
        """The last chunk of a stream, if it was asked for."""

    def whole(self, answers: Sequence[Answer], usage: Usage) -> Any:
        """The plain answer."""


class Closing:
    """Falcon closes a stream with close(); generators know only aclose()."""

    def __init__(self, generator: AsyncGenerator[bytes, None]) -> None:
        self._generator = generator

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._generator

    async def __anext__(self) -> bytes:
        return await anext(self._generator)

    async def close(self) -> None:
        await self._generator.aclose()


async def respond(
    resp: Response, run: Run, writer: Writer, *, stream: bool, models: Models, config: AppConfig
) -> None:
    """Answer a request, either way. Raises what Run.pieces raises, as long as no answer has begun.

    A stream begins (and its status is 200) with the engine's first step, so that a full queue is still a 429;
    or, if a prompt waits longer than the keep-alive interval, with a keep-alive. Later failures are events.
    """
    pieces = run.pieces(models, config)
    if not stream:
        answers = await _folded(pieces, run)
        media.send_json(resp, writer.whole(answers, run.usage()))
        return
    first = await anext(pieces)
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_headers(media.STREAM_HEADERS)
    resp.stream = Closing(_events(first, pieces, run, writer, config.keep_alive_interval))


async def _folded(pieces: Pieces, run: Run) -> list[Answer]:
    answers = [Answer() for _ in range(len(run.plan.prompts) * run.plan.n)]
    async with aclosing(pieces):
        async for batch in pieces:
            for piece in batch:
                answers[piece.index].add(piece)
    return answers


async def _events(
    first: list[Piece], rest: Pieces, run: Run, writer: Writer, interval: float
) -> AsyncGenerator[bytes, None]:
    """The body of a stream: every batch of pieces is one write."""
    clock = asyncio.get_running_loop().time
    async with aclosing(rest):
        try:
            batch: list[Piece] | None = first
            last = clock()
            while batch is not None:
                said = b"".join(media.event(chunk) for piece in batch for chunk in writer.chunks(piece))
                if said or clock() - last >= interval or not batch:
                    last = clock()
                    yield said or media.KEEP_ALIVE
                batch = await anext(rest, None)
            usage = writer.usage_chunk(run.usage())
            yield (b"" if usage is None else media.event(usage)) + media.DONE
        except Exception as error:
            yield media.event(media.as_basert_error(error).wire())
