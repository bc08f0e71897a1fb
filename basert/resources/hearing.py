"""A recording's way through a speech model: windows to the engine, its answers to passages, in order.

Clips (basert.resources.recordings) run side by side, or one after another, each with the text before it. A
clip is heard in windows of at most 30 s; where one ends the model's timestamps tell. Knows no wire form.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing

from basert.audio.windows import LONGEST, Window
from basert.http.models import Model
from basert.manifest import Speech
from basert.resources.listening import Heard, Listener, Wish
from basert.resources.merge import merge
from basert.resources.passages import Passage, passage_of
from basert.resources.recordings import Recording
from basert.resources.service import Service

AT_ONCE = 8  # windows of one recording
LEAST = 0.5  # seconds: a step, and the speech left in a clip for which it is heard further
HOT = 0.5  # a text drawn at a higher temperature is no prompt for the next window: it might be anything

Numbered = tuple[int, Passage | None]  # a clip's number; None: it is done
Passages = AsyncGenerator[list[Passage], None]


class Hearing:
    """One request's way through a speech model."""

    def __init__(
        self, recording: Recording, wish: Wish, model: Model, speech: Speech, service: Service, started: float
    ) -> None:
        """started: the request's arrival, by time.perf_counter."""
        self.recording = recording
        self.language = wish.language or ""  # Whisper's code, once it is known
        self._wish = wish
        self._model = model
        self._mels = speech.mels
        self._languages = wish.languages or list(speech.languages) or ["en"]
        self._service = service
        self._started = started
        self._figures = service.metrics.speech(model.name)
        self._listener = Listener(wish, model, speech, service)
        self._finding = asyncio.Lock()

    async def passages(self) -> Passages:
        """What was heard, in order; an empty list when nothing came for the keep-alive interval.

        Raises what the engine client raises, and RequestTimeout. Closed, it cancels all windows. However it
        ends, the recording is closed.
        """
        with closing(self.recording), self._service.engaged(self._model, 0, self._started):
            ordered = _Ordered()
            async with aclosing(self._merged()) as merged:
                async for batch in merged:
                    passages = ordered.add(batch)
                    if passages or not batch:
                        yield passages
            self._figures.done(self.recording.duration, self._started)

    def _merged(self) -> AsyncGenerator[list[Numbered], None]:
        return merge(
            [self._in_turn()] if self._wish.in_turn else [self._alone(*one) for one in self._clips()],
            at_once=AT_ONCE,
            idle=self._service.config.keep_alive_interval,
            timeout=self._service.seconds_left(self._started),
            error=self._service.took_too_long(),
        )

    def _clips(self) -> Sequence[tuple[int, Window]]:
        return list(enumerate(self.recording.clips))

    async def _alone(self, number: int, clip: Window) -> AsyncGenerator[Numbered, None]:
        async with aclosing(self._heard(clip, self._context())) as passages:
            async for passage in passages:
                yield number, passage
        yield number, None

    async def _in_turn(self) -> AsyncGenerator[Numbered, None]:
        """All clips, each with what was said before it."""
        context = self._context()
        for number, clip in self._clips():
            async with aclosing(self._heard(clip, context)) as passages:
                async for passage in passages:
                    yield number, passage
            yield number, None

    def _context(self) -> _Context:
        return _Context(self._wish.prompt, follows=self._wish.follows)

    async def _heard(self, clip: Window, context: _Context) -> AsyncGenerator[Passage, None]:
        """A clip, window by window."""
        await self._find_language()
        start = clip.start
        while start == clip.start or _speech_after(start, clip) >= LEAST:
            window = Window(start, min(start + LONGEST, clip.end), clip.speech, clip.heard)
            passage = await self._listen(window, context)
            context.add(passage)
            yield passage
            start = max(passage.until, start + LEAST)

    async def _listen(self, window: Window, context: _Context) -> Passage:
        listener, timed = self._listener, self._wish.timestamps
        features = await self._features(window)
        heard = await listener.hear(features, self.language, context.ids, timestamps=timed)
        if not heard.finished and not timed:  # there was more to say: timestamps tell where to go on
            heard = await listener.hear(features, self.language, context.ids, timestamps=True)
        self._figures.heard_window()
        return await self._passage(heard, window)

    async def _passage(self, heard: Heard, window: Window) -> Passage:
        """Aligning words may take long."""
        if self._wish.words:
            return await asyncio.to_thread(passage_of, heard, window, self._listener, self.language)
        return passage_of(heard, window, self._listener, self.language)

    async def _features(self, window: Window) -> bytes:
        return await self.recording.features(window.start, window.end, self._mels)

    async def _find_language(self) -> None:
        """Whoever comes first asks the model, which need not hear that window again to transcribe it."""
        async with self._finding:
            if self.language:
                return
            if len(self._languages) > 1:
                clip = self.recording.clips[0]
                first = Window(clip.start, min(clip.start + LONGEST, clip.end), clip.speech, clip.heard)
                self.language = await self._listener.language(await self._features(first))
            else:
                self.language = self._languages[0]


class _Context:
    """What was said before a window, as token ids."""

    def __init__(self, prompt: Sequence[int], *, follows: bool) -> None:
        """follows: each window's text is a prompt for the next one."""
        self._prompt = prompt
        self._follows = follows
        self.ids = list(prompt)

    def add(self, passage: Passage) -> None:
        if not self._follows:
            return
        for segment in passage.segments:
            self.ids += segment.tokens
        if any(segment.temperature > HOT for segment in passage.segments):
            self.ids = list(self._prompt)


class _Ordered:
    """Passages of clips that run side by side, handed on in the clips' order."""

    def __init__(self) -> None:
        self._next = 0  # the clip whose passages are handed on as they come
        self._waiting: dict[int, list[Passage | None]] = defaultdict(list)

    def add(self, batch: Sequence[Numbered]) -> list[Passage]:
        for number, passage in batch:
            self._waiting[number].append(passage)
        ready: list[Passage] = []
        while waiting := self._waiting.pop(self._next, None):
            ready += [one for one in waiting if one is not None]
            if waiting[-1] is not None:
                break
            self._next += 1
        return ready


def _speech_after(start: float, clip: Window) -> float:
    """Seconds."""
    return sum(end - max(start, begin) for begin, end in clip.speech if end > start)
