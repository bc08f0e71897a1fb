"""What a transcription is made of: segments, words, and the whole. Knows no wire form and no model."""

from __future__ import annotations

from msgspec import Struct


class Word(Struct, frozen=True):
    word: str
    start: float  # seconds from the recording's beginning, as all times here
    end: float


class Segment(Struct, frozen=True):
    """A stretch of speech with its text: OpenAI's ten fields, of which clients expect every one."""

    id: int
    seek: int  # where its window begins, in hundredths of a second
    start: float
    end: float
    text: str  # as decoded, mostly with a space in front
    tokens: list[int]  # timestamps included
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class Transcript(Struct, frozen=True):
    duration: float  # seconds, of the recording
    language: str  # Whisper's code
    segments: list[Segment]
    words: list[Word] = []  # only if they were asked for

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.segments).strip()
