"""Transcripts' wire forms: whole, or as the events of a stream. Knows no engine.

A stream's deltas, joined, are the whole answer's text, in the form of srt and vtt as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from basert import schema
from basert.audio import formats
from basert.audio.formats import Logprob, Plain, Task, TextDelta, TextDone, Verbose
from basert.audio.segments import Segment, Transcript, Word
from basert.errors import BasertError
from basert.http import media
from basert.resources.passages import Passage
from basert.schema.transcriptions import TranslationRequest
from basert.text import TextModel


class TranscriptWriter:
    """Takes what a hearing yields, and says it."""

    def __init__(self, request: TranslationRequest, task: Task, text: TextModel, duration: float) -> None:
        self._request = request
        self._task = task
        self._text = text
        self._duration = duration
        self._segments: list[Segment] = []
        self._words: list[Word] = []
        self._logprobs: list[Logprob] = []
        self._tokens = 0

    def add(self, passage: Passage) -> list[Segment]:
        """Its segments, numbered."""
        first = len(self._segments)
        segments = [msgspec.structs.replace(one, id=first + n) for n, one in enumerate(passage.segments)]
        self._segments += segments
        self._words += passage.words
        self._tokens += passage.tokens
        if self._request.logprobs:
            self._logprobs += [self._logprob(*one) for one in passage.scored]
        return segments

    def events(self, passage: Passage) -> Iterator[TextDelta]:
        scored = len(self._logprobs)
        segments = self.add(passage)
        for segment in segments:
            last = segment is segments[-1]
            end = passage.until if last else segment.end
            logprobs = self._logprobs[scored:] if last and self._request.logprobs else UNSET
            yield TextDelta(self._said(segment), round(end, 2), self._duration, logprobs)

    def _said(self, segment: Segment) -> str:
        match self._request.form:
            case "srt":
                return formats.srt_cues([segment], segment.id + 1)
            case "vtt":
                return ("" if segment.id else formats.VTT_HEAD) + formats.vtt_cues([segment])
            case _:
                return segment.text if segment.id else segment.text.lstrip()

    def whole(self, language: str) -> Plain | Verbose | str:
        """The plain answer. language: Whisper's code of what was spoken."""
        transcript = self._transcript(language)
        match self._request.form:
            case "text":
                return formats.text(transcript)
            case "srt":
                return formats.srt(transcript)
            case "vtt":
                return formats.vtt(transcript)
            case "verbose_json":
                return formats.verbose(transcript, self._request.granularities, self._task)
            case _:
                plain = formats.plain(transcript)
                plain.logprobs = self._scored()
                return plain

    def ending(self, language: str) -> bytes:
        """A stream's last event."""
        whole = self.whole(language)
        usage = formats.Tokens(0, self._tokens, self._tokens)
        if isinstance(whole, str):
            done = TextDone(whole.strip() if self._request.form == "text" else whole, usage)
        elif isinstance(whole, Plain):
            done = TextDone(whole.text, usage, whole.logprobs)
        else:
            fields = {name: getattr(whole, name) for name in ("task", "language", "duration", "segments")}
            done = TextDone(whole.text, usage, words=whole.words, **fields)
        return media.event(done)

    def failure(self, error: BasertError) -> bytes:
        """The last event of a stream that fails."""
        return media.event(error.wire())

    def _transcript(self, language: str) -> Transcript:
        """A translation is in English."""
        spoken = "en" if self._task == "translate" else language
        return Transcript(round(self._duration, 2), spoken, self._segments, self._words)

    def _scored(self) -> list[Logprob] | UnsetType:
        return self._logprobs if self._request.logprobs else UNSET

    def _logprob(self, token: int, logprob: float) -> Logprob:
        raw = self._text.token_bytes(token)
        return Logprob(raw.decode(errors="replace"), schema.finite(logprob), list(raw))
