"""Whisper's timestamp tokens: a window's ids to timed pieces, and where to go on. Knows ids, no text.

A timestamp token stands for a time in steps of 0.02 s from the window's beginning. Text stands between two:
<0.00> text <2.00><2.00> text <4.50>, and so on. Two in a row end a piece and begin the next. What follows the
last pair was cut off by the window's end, unless the window ends with a single timestamp: then nothing is
spoken behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STEP = 0.02  # seconds


@dataclass(frozen=True)
class Piece:
    """Ids with their timestamps, and the times in seconds from the window's beginning."""

    tokens: tuple[int, ...]
    start: float
    end: float


@dataclass(frozen=True)
class Reading:
    pieces: tuple[Piece, ...]
    consumed: float  # seconds of the window that are done with: where the next one begins; never 0


def read(tokens: Sequence[int], first: int, length: float) -> Reading:
    """The pieces of a window of `length` seconds, of what was generated for it, less prompt and end of text.

    first: the id of <|0.00|>. A piece may turn out without text; times lie within the window, in order.
    """
    borders = _pairs(tokens, first)
    if not borders:
        return Reading((_whole(tokens, first, length),) if tokens else (), length)
    single = _ends_single(tokens, first)
    ends = [*borders, len(tokens)] if single else borders
    pieces = tuple(
        _piece(tokens[start:end], first, length) for start, end in zip([0, *ends], ends, strict=False)
    )
    consumed = length if single else pieces[-1].end
    return Reading(pieces, consumed if consumed > 0 else length)


def _pairs(tokens: Sequence[int], first: int) -> list[int]:
    """Where the second of two timestamps in a row stands."""
    return [at for at in range(1, len(tokens)) if tokens[at - 1] >= first and tokens[at] >= first]


def _ends_single(tokens: Sequence[int], first: int) -> bool:
    return tokens[-1] >= first and (len(tokens) < 2 or tokens[-2] < first)


def _piece(tokens: Sequence[int], first: int, length: float) -> Piece:
    start = _time(tokens[0], first, length)
    return Piece(tuple(tokens), start, max(start, _time(tokens[-1], first, length)))


def _whole(tokens: Sequence[int], first: int, length: float) -> Piece:
    """All of a window without a pair: up to its last timestamp, if there is one but <0.00>."""
    last = next((one for one in reversed(tokens) if one >= first), first)
    return Piece(tuple(tokens), 0.0, _time(last, first, length) if last > first else length)


def _time(token: int, first: int, length: float) -> float:
    return min(max(token - first, 0) * STEP, length)
