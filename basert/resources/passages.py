"""What was heard of one window, as segments and words with their times in the recording. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from basert.audio import quality, timestamps
from basert.audio.segments import Segment, Word
from basert.audio.windows import Window
from basert.resources.listening import Heard, Listener

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Passage:
    """What one window brought. Segments are numbered when all before them are known."""

    until: float  # seconds of the recording that are done with
    tokens: int = 0  # generated
    segments: list[Segment] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    scored: list[tuple[int, float]] = field(default_factory=list)  # tokens of the text, log-probabilities


NEAR = 0.5  # seconds: a segment that begins so soon after speech does begins with it
OVER = 0.3  # seconds before speech ends, in which no segment begins


@dataclass(frozen=True)
class _Part:
    """A segment to be: where its tokens stand among all of them, and its times in the recording."""

    tokens: slice
    start: float
    end: float


def passage_of(heard: Heard, window: Window, listener: Listener, language: str) -> Passage:
    """window: what was heard, at most 30 s, and where speech is. May take long if there are words to align.

    Nothing is left of a window in which nobody spoke, nor of a segment outside of all speech.
    """
    read = timestamps.read(listener.said(heard), listener.speech.timestamp_begin, window.end - window.start)
    if quality.is_silent(heard.average, heard.no_speech, listener.wish.limits):
        return Passage(window.end, len(heard.tokens))
    passage = Passage(window.start + read.consumed, len(heard.tokens))
    starts = _starts(heard, listener, window) if heard.alignment else None
    for part in _parts(read, window):
        segment = _segment(part, heard, listener, window)
        if not segment.text.strip() or quality.unheard(part.start, part.end, window.speech):
            continue
        spoken = [] if starts is None else list(_words(part, heard, listener, starts, language))
        passage.words.extend(spoken)
        passage.segments.append(_settled(segment, spoken, window))
        scored = zip(heard.tokens[part.tokens], heard.logprobs[part.tokens], strict=True)
        passage.scored.extend((token, score) for token, score in scored if listener.is_text(token))
    return passage


def _settled(segment: Segment, words: Sequence[Word], window: Window) -> Segment:
    """A segment at the times of its words, as Whisper has it; else where speech begins and ends near its own,
    which are a guess in steps that hardly look at the sound."""
    if words:
        return msgspec.structs.replace(segment, start=words[0].start, end=words[-1].end)
    start = _begin(segment.start, window.heard)
    end = -_begin(-segment.end, [(-end, -begin) for begin, end in reversed(window.heard)])
    return msgspec.structs.replace(segment, start=start, end=end) if start < end else segment


def _begin(time: float, ranges: Sequence[tuple[float, float]]) -> float:
    """Where the speech begins that is meant by `time`: of the range that it lies near the beginning of, or of
    the next one, if it lies in silence or at the very end of a range."""
    for start, end in ranges:
        if time <= start or (time < end and time - start <= NEAR):
            return round(start, 2)
        if time < end - OVER:
            return time
    return time


def _parts(read: timestamps.Reading, window: Window) -> Iterator[_Part]:
    at = 0
    for piece in read.pieces:
        behind = at + len(piece.tokens)
        yield _Part(slice(at, behind), window.start + piece.start, window.start + piece.end)
        at = behind


def _segment(part: _Part, heard: Heard, listener: Listener, window: Window) -> Segment:
    tokens = heard.tokens[part.tokens]
    return Segment(
        id=0,
        seek=round(window.start * 100),
        start=round(part.start, 2),
        end=round(part.end, 2),
        text=listener.text(tokens),
        tokens=tokens,
        temperature=heard.temperature,
        avg_logprob=heard.average,
        compression_ratio=heard.ratio,
        no_speech_prob=max(heard.no_speech, 0.0),
    )


def _starts(heard: Heard, listener: Listener, window: Window) -> NDArray[np.float64]:
    """When each token of text begins, and the last one ends: seconds of the recording [texts + 1]."""
    import numpy as np

    from basert.audio.alignment import FRAME, token_starts

    length = window.end - window.start
    spoken = [at for at, token in enumerate(heard.tokens) if not listener.is_timestamp(token)]
    flat = np.frombuffer(b"".join(heard.alignment), "<f2")
    table = flat.reshape(len(heard.tokens), -1, listener.speech.frames)
    frames = max(1, min(listener.speech.frames, round(length / FRAME)))
    attention = table[spoken, :, :frames].astype(np.float32).swapaxes(0, 1)
    starts = token_starts(attention) if spoken else np.empty(0)
    return window.start + (starts if heard.finished else np.append(starts, length))


def _words(
    part: _Part, heard: Heard, listener: Listener, starts: NDArray[np.float64], language: str
) -> Iterator[Word]:
    import math

    from basert.audio.words import timed

    before = sum(map(listener.is_text, heard.tokens[: part.tokens.start]))
    chosen = [at for at in range(part.tokens.start, part.tokens.stop) if listener.is_text(heard.tokens[at])]
    tokens = [heard.tokens[at] for at in chosen]
    likely = [math.exp(heard.logprobs[at]) for at in chosen]
    times: Sequence[float] = starts[before : before + len(tokens) + 1].tolist()
    for one in timed(tokens, times, likely, listener.text, language):
        if word := one.text.strip():
            yield Word(word, round(one.start, 2), round(one.end, 2))
