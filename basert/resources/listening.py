"""One window of a recording through the engine: the prompt, the tries, and what comes of them.

Knows Whisper's prompts and how it tries again; no recording, no segments and no wire form.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property

from basert.audio import quality
from basert.audio.formats import Task
from basert.audio.quality import Thresholds
from basert.errors import EngineFailed, Overloaded, Unavailable
from basert.http.models import Model
from basert.manifest import Speech
from basert.messages import Sampling, Sound, Submit, Tokens
from basert.resources.planning import context_of
from basert.resources.service import Service

PASSING = ("queue_full", "model_not_ready")  # codes of errors that are over when one waits


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a request asks of every window."""

    task: Task
    limits: Thresholds
    language: str | None  # Whisper's code; None: to be found out
    languages: Sequence[str] = ()  # of which it is one; (): of all
    hotwords: Sequence[int] = ()  # token ids, as those of the prompt
    prompt: Sequence[int] = ()
    in_turn: bool = False  # windows one after another, each with the text before it; else side by side
    follows: bool = True  # where windows follow each other, a text is a prompt for the next
    timestamps: bool = True
    words: bool = False
    temperature: float = 0.0
    max_tokens: int | None = None  # of a window's answer
    seed: int = 0
    priority: int = 0


@dataclass
class Heard:
    """What the engine said of a window at one temperature. Each of `tokens` has one of `logprobs`."""

    temperature: float
    tokens: list[int] = field(default_factory=list)  # timestamps and the end of text among them
    logprobs: list[float] = field(default_factory=list)
    no_speech: float = 0.0
    finished: bool = False  # else it had no room for more
    alignment: list[bytes] = field(default_factory=list)  # see messages.Tokens
    text: str = ""

    def add(self, said: Tokens) -> None:
        self.tokens += said.tokens
        self.logprobs += [one.logprob for one in said.logprobs]
        self.no_speech = max(self.no_speech, said.no_speech)
        self.finished = said.finish == "stop"
        if said.alignment:
            self.alignment.append(said.alignment)

    @cached_property
    def ratio(self) -> float:
        return quality.compression_ratio(self.text.strip())

    @cached_property
    def average(self) -> float:
        return quality.avg_logprob(self.logprobs)


class Listener:
    """One request's way to a speech model."""

    def __init__(self, wish: Wish, model: Model, speech: Speech, service: Service) -> None:
        self.wish = wish
        self.speech = speech
        self._model = model
        self._meter = service.meter(model)
        self._figures = service.metrics.speech(model.name)
        self._begun = False  # something was heard

    async def language(self, features: bytes) -> str:
        """Whisper's code of what is spoken in a window."""
        known = self.speech.languages
        codes = {known[code]: code for code in self.wish.languages or known}
        sound = Sound(features, timestamps=False)
        asked = Submit(
            0, [self.speech.sot], 1, Sampling(temperature=0.0), allowed_ids=list(codes), sound=sound
        )
        said = await self._answer(asked)
        return codes[next(token for one in said for token in one.tokens)]

    async def hear(
        self, features: bytes, language: str, previous: Sequence[int], *, timestamps: bool
    ) -> Heard:
        """The answer to a window at the first temperature at which it is good, or at the last.

        features: see messages.Sound. language: Whisper's code. previous: token ids of what was said before.
        """
        wish = self.wish
        prompt = self._prompt(language, previous, timestamps=timestamps)
        sound = Sound(features, timestamps, wish.words)
        for temperature in quality.temperatures(wish.temperature):
            heard = Heard(temperature)
            for said in await self._answer(self._asked(prompt, sound, temperature)):
                heard.add(said)
            heard.text = self.text(heard.tokens)
            if not quality.is_bad(heard.ratio, heard.average, heard.no_speech, wish.limits):
                break
            self._figures.tried_in_vain()
        return heard

    def _asked(self, prompt: list[int], sound: Sound, temperature: float) -> Submit:
        context = context_of(self._model)
        most = min(self.wish.max_tokens or context, context // 2, context - len(prompt))
        sampling = Sampling(temperature=temperature, seed=self.wish.seed)
        lane = self.wish.priority
        return Submit(0, prompt, max(1, most), sampling, logprobs=0, priority=lane, sound=sound)

    async def _answer(self, asked: Submit) -> list[Tokens]:
        """All that the engine says. What is heard of a recording is not thrown away because the queue is full
        or the engine died once: this window is asked for again."""
        died = False
        while True:
            try:
                return await self._once(asked)
            except EngineFailed:
                if died:
                    raise
                died = True
            except (Overloaded, Unavailable) as error:
                if error.code not in PASSING or not (self._begun or died):
                    raise
                await asyncio.sleep(error.retry_after or 1.0)

    async def _once(self, asked: Submit) -> list[Tokens]:
        since, said = time.perf_counter(), list[Tokens]()
        async with aclosing(self._model.engine.generate(asked)) as answers:
            async for one in answers:
                since = self._meter.step(len(one.tokens), since, first=not said)
                said.append(one)
        self._begun = True
        return said

    def _prompt(self, language: str, previous: Sequence[int], *, timestamps: bool) -> list[int]:
        """Token ids: what was said before, as much as Whisper takes of it, and what is wanted now."""
        speech = self.speech
        asked = [speech.sot]
        if speech.languages:
            task = speech.translate if self.wish.task == "translate" else speech.transcribe
            asked += [speech.languages[language], *([] if task is None else [task])]
        asked += [] if timestamps else [speech.no_timestamps]
        most = context_of(self._model) // 2 - 1
        named = list(self.wish.hotwords)[: most // 2]
        before = named + list(previous)[-(most - len(named)) :]
        return [speech.previous, *before, *asked] if before and speech.previous is not None else asked

    def said(self, heard: Heard) -> list[int]:
        """Its tokens without the end of text."""
        ended = heard.tokens and heard.tokens[-1] in self._model.manifest.eos_token_ids
        return heard.tokens[:-1] if ended else heard.tokens

    def is_timestamp(self, token: int) -> bool:
        return token >= self.speech.timestamp_begin

    def is_text(self, token: int) -> bool:
        return token < self.speech.timestamp_begin and token not in self._model.manifest.eos_token_ids

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, timestamps left out."""
        return self._model.text.decode(token for token in tokens if self.is_text(token))
