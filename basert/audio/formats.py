"""Transcripts on the wire: OpenAI's five formats, and the events of a stream. Knows no model and no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from basert.audio.languages import name
from basert.audio.segments import Segment, Transcript, Word

Task = Literal["transcribe", "translate"]

VTT_HEAD = "WEBVTT\n\n"


class Seconds(Struct, tag_field="type", tag="duration"):
    """Usage by the length of the sound."""

    seconds: float


class Logprob(Struct):
    """How likely a token of the text was."""

    token: str
    logprob: float
    bytes: list[int]


class Plain(Struct):
    """response_format `json`"""

    text: str
    usage: Seconds
    logprobs: list[Logprob] | UnsetType = UNSET


class Verbose(Struct):
    """response_format `verbose_json`; what was not asked for is left out."""

    task: Task
    language: str
    duration: float
    text: str
    segments: list[Segment] | UnsetType
    words: list[Word] | UnsetType
    usage: Seconds


class TextDelta(Struct, tag_field="type", tag="transcript.text.delta"):
    """A segment. OpenAI has no `end` and no `duration`."""

    delta: str
    end: float | UnsetType = UNSET  # seconds of the recording that are heard
    duration: float | UnsetType = UNSET  # seconds of the recording
    logprobs: list[Logprob] | UnsetType = UNSET


class Tokens(Struct, tag_field="type", tag="tokens"):
    """Usage by tokens: the only one that a stream's last event has."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class TextDone(Struct, tag_field="type", tag="transcript.text.done"):
    """The end of a stream. OpenAI has none of what `verbose_json` adds here: a transcript's other parts."""

    text: str
    usage: Tokens | UnsetType = UNSET
    logprobs: list[Logprob] | UnsetType = UNSET
    task: Task | UnsetType = UNSET
    language: str | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    segments: list[Segment] | UnsetType = UNSET
    words: list[Word] | UnsetType = UNSET


def plain(transcript: Transcript) -> Plain:
    return Plain(transcript.text, _usage(transcript))


def verbose(
    transcript: Transcript, granularities: Collection[str] = (), task: Task = "transcribe"
) -> Verbose:
    """granularities: "segment", "word", both, or none, which means segments."""
    return Verbose(
        task=task,
        language=name(transcript.language),
        duration=transcript.duration,
        text=transcript.text,
        segments=transcript.segments if "segment" in granularities or not granularities else UNSET,
        words=transcript.words if "word" in granularities else UNSET,
        usage=_usage(transcript),
    )


def text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def srt(transcript: Transcript) -> str:
    return srt_cues(transcript.segments)


def srt_cues(segments: Iterable[Segment], first: int = 1) -> str:
    """SubRip: numbered from `first`, with commas in its times."""
    cues = _cues(segments, ",", lambda line: line)
    return "".join(f"{number}\n{cue}\n" for number, cue in enumerate(cues, first))


def vtt(transcript: Transcript) -> str:
    return VTT_HEAD + vtt_cues(transcript.segments)


def vtt_cues(segments: Iterable[Segment]) -> str:
    """WebVTT behind its head, in whose text `&` and `<` mean something."""
    cues = _cues(segments, ".", lambda line: line.replace("&", "&amp;").replace("<", "&lt;"))
    return "".join(f"{cue}\n" for cue in cues)


def _usage(transcript: Transcript) -> Seconds:
    return Seconds(transcript.duration)


def _cues(segments: Iterable[Segment], point: str, escaped: Callable[[str], str]) -> list[str]:
    """Times and text of every segment with text. A cue's text is one line, for an empty one would end it."""
    cues = []
    for one in segments:
        line = " ".join(one.text.split()).replace("-->", "->")
        if line:
            cues.append(f"{_clock(one.start, point)} --> {_clock(one.end, point)}\n{escaped(line)}\n")
    return cues


def _clock(seconds: float, point: str) -> str:
    """00:00:00.000"""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{thousandths:03}"
