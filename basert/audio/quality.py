"""Is what a model wrote for a window to be believed? Whisper's rules, with its thresholds. Knows no model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from basert.audio.windows import Range
from basert.audio.words import PUNCTUATION, TimedWord

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried in turn until an answer is good


@dataclass(frozen=True)
class Thresholds:
    compression_ratio: float = 2.4  # above: the text repeats itself
    avg_logprob: float = -1.0  # below: the model was guessing
    no_speech_prob: float = 0.6  # above, and guessing: nobody spoke


def compression_ratio(text: str) -> float:
    """How many times smaller the text gets when it is compressed; 0 for none."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def avg_logprob(logprobs: Sequence[float]) -> float:
    """The mean over what was generated, the end of text among it; 0 for nothing."""
    return sum(logprobs) / len(logprobs) if logprobs else 0.0


def is_silent(avg_logprob: float, no_speech_prob: float, limits: Thresholds = Thresholds()) -> bool:
    """Nobody spoke, whatever was written."""
    return no_speech_prob > limits.no_speech_prob and avg_logprob < limits.avg_logprob


def is_bad(
    ratio: float, avg_logprob: float, no_speech_prob: float, limits: Thresholds = Thresholds()
) -> bool:
    """To be tried again at the next temperature."""
    if is_silent(avg_logprob, no_speech_prob, limits):
        return False
    return ratio > limits.compression_ratio or avg_logprob < limits.avg_logprob


def temperatures(asked: float) -> tuple[float, ...]:
    """The temperatures to try: Whisper's row if 0 was asked for, or else that one alone."""
    return TEMPERATURES if asked == 0 else (asked,)


def unheard(start: float, end: float, speech: Sequence[Range]) -> bool:
    """Nobody speaks between `start` and `end`: what is written for it was made up."""
    return not any(start < to and since < end for since, to in speech)


def is_made_up(words: Sequence[TimedWord]) -> bool:
    """The words of a segment sit oddly in time or are unlikely, so that they were hardly spoken."""
    spoken = [one for one in words if one.text.strip() not in PUNCTUATION][:8]
    oddness = sum(_oddness(one) for one in spoken)
    return bool(spoken) and (oddness >= 3 or oddness + 0.01 >= len(spoken))


def _oddness(word: TimedWord) -> float:
    """0 for a likely word of ordinary length; more if unlikely, hurried (under 0.133 s) or drawn out."""
    duration = word.end - word.start
    return (word.probability < 0.15) + max(0.133 - duration, 0) * 15 + max(duration - 2, 0)
