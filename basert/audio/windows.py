"""Where in a recording somebody speaks, and the windows sent to a model. Knows probabilities, no samples.

Speech begins where it is likelier than the threshold and ends where it has been a good deal less likely for a
while. Ranges of speech are packed into windows in order, as many as fit; silence before, behind and between
windows is sent to nobody. Talk without a pause is cut where it is least like speech.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basert.audio.voice import CHUNK

LONGEST = 30.0  # seconds, of a window

_STEP = CHUNK / 16_000  # seconds from one probability to the next
_GRIP = 0.15  # speech goes on until it is that much less likely than where it may begin
_LEAST = 0.1  # seconds: what is shorter is a click
_AFTER = 0.2  # seconds kept behind speech: endings are quiet

Range = tuple[float, float]


@dataclass(frozen=True)
class Detection:
    """How speech is told from silence: OpenAI's `server_vad`, whose values "auto" has, too."""

    threshold: float = 0.5  # 0 to 1: how likely speech has to be
    prefix_padding_ms: int = 300  # kept before speech
    silence_duration_ms: int = 200  # after which speech is over


@dataclass(frozen=True)
class Window:
    """A piece of a recording; all times in seconds from the recording's beginning."""

    start: float
    end: float
    speech: tuple[Range, ...]  # with some of what comes before and behind
    heard: tuple[Range, ...] = ()  # from where speech is plain to where it is over


def cut(
    probabilities: NDArray[np.float32],
    duration: float,
    how: Detection | None = None,
    longest: float = LONGEST,
) -> list[Window]:
    """Windows of at most `longest` seconds that hold all speech; none if nobody speaks.

    probabilities: [n] f32, one for each voice.CHUNK. duration: seconds.
    """
    how = how or Detection()
    plain = list(_spoken(probabilities, how))
    windows: list[list[Range]] = []
    padded = _padded(plain, duration, how)
    for piece in (part for one in padded for part in _split(one, probabilities, longest)):
        if windows and piece[1] - windows[-1][0][0] <= longest:
            windows[-1].append(piece)
        else:
            windows.append([piece])
    return [_window(speech, plain) for speech in windows]


def _window(speech: list[Range], plain: list[Range]) -> Window:
    start, end = speech[0][0], speech[-1][1]
    heard = tuple((max(a, start), min(b, end)) for a, b in plain if a < end and b > start)
    return Window(start, end, tuple(speech), heard)


def _spoken(probabilities: NDArray[np.float32], how: Detection) -> Iterator[Range]:
    """Ranges of speech in seconds, without padding."""
    patience = how.silence_duration_ms / 1000
    for start, end in _joined(_runs(probabilities, how.threshold), patience):
        if end - start >= _LEAST:
            yield start, end


def _runs(probabilities: NDArray[np.float32], threshold: float) -> Iterator[Range]:
    """Unbroken runs of chunks that hold on to speech, from where it begins."""
    begins = probabilities >= threshold
    held = probabilities >= min(threshold, max(threshold - _GRIP, 0.01))
    edges = np.flatnonzero(np.diff(held, prepend=False, append=False))
    for first, behind in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        clear = np.flatnonzero(begins[first:behind])
        if len(clear):
            yield (first + int(clear[0])) * _STEP, behind * _STEP


def _joined(ranges: Iterator[Range], patience: float) -> Iterator[Range]:
    """Ranges with less than `patience` seconds between them as one."""
    last: Range | None = None
    for one in ranges:
        if last is not None and one[0] - last[1] < patience:
            last = last[0], one[1]
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _padded(ranges: list[Range], duration: float, how: Detection) -> list[Range]:
    """Ranges with what comes before and behind, up to the middle of the silence between two."""
    before = how.prefix_padding_ms / 1000
    starts, ends = [one[0] for one in ranges], [one[1] for one in ranges]
    middles = [0.0, *((a + b) / 2 for a, b in zip(ends, starts[1:], strict=False)), duration]
    return [
        (max(start - before, left), min(end + _AFTER, right))
        for start, end, left, right in zip(starts, ends, middles, middles[1:], strict=False)
    ]


def _split(one: Range, probabilities: NDArray[np.float32], longest: float) -> Iterator[Range]:
    """A range in pieces of at most `longest` seconds, cut where it is least like speech."""
    start, end = one
    while end - start > longest:
        first = int((start + longest / 2) / _STEP) + 1
        behind = max(first + 1, int((start + longest) / _STEP))
        at = first + int(np.argmin(probabilities[first:behind]))
        middle = min((at + 0.5) * _STEP, start + longest)
        yield start, middle
        start = middle
    yield start, end
