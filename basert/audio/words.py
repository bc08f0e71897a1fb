"""Tokens to words with times. Knows how languages separate words, and text only through a given decoder.

Whisper's rules: words begin at spaces, in languages without spaces every character is one, and punctuation
belongs to the word that it touches.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

PUNCTUATION = frozenset(string.punctuation) | frozenset("“¿。，！？：”、")
_WITH_NEXT = "\"'“¡¿([{-"
_WITH_LAST = "\"'.。,，!！?？:：”)]}、"
_SENTENCE_ENDS = frozenset(".。!！?？")
_WITHOUT_SPACES = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_BROKEN = "\ufffd"  # what a decoder makes of half a character

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class TimedWord:
    text: str  # as decoded, with the space in front
    tokens: tuple[int, ...]
    start: float  # seconds
    end: float
    probability: float  # the mean of its tokens'


def timed(
    tokens: Sequence[int],
    starts: Sequence[float],
    probabilities: Sequence[float],
    decode: Decode,
    language: str,
) -> list[TimedWord]:
    """The words of a segment: text tokens [n], where each begins and the last ends [n + 1], odds [n]."""
    words = []
    at = 0
    for part in split(tokens, decode, language):
        behind = at + len(part)
        likely = sum(probabilities[at:behind]) / len(part)
        words.append(TimedWord(decode(part), part, starts[at], starts[behind], likely))
        at = behind
    return _merged(_shortened(words))


def split(tokens: Sequence[int], decode: Decode, language: str) -> list[tuple[int, ...]]:
    """Tokens by word, before punctuation is merged; no token is lost."""
    characters = _characters(tokens, decode)
    if language in _WITHOUT_SPACES:
        return characters
    words: list[tuple[int, ...]] = []
    for part in characters:
        text = decode(part)
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append(part)
        else:
            words[-1] += part
    return words


def _characters(tokens: Sequence[int], decode: Decode) -> list[tuple[int, ...]]:
    """The shortest runs of tokens that are whole characters. A character may take several tokens."""
    whole = decode(tokens)
    found: list[tuple[int, ...]] = []
    held: tuple[int, ...] = ()
    length = 0  # of the text before what is held
    for token in tokens:
        held += (token,)
        text = decode(held)
        at = text.find(_BROKEN)
        if at < 0 or whole[length + at : length + at + 1] == _BROKEN:  # second: in the whole, too
            found.append(held)
            held, length = (), length + len(text)
    return [*found, held] if held else found


def _shortened(words: list[TimedWord]) -> list[TimedWord]:
    """Words at the ends of sentences, and the first, without the pause that alignment gave to them."""
    longest = 2 * _usual(words)
    done: list[TimedWord] = []
    for word in words:
        if word.end - word.start > longest > 0:
            if word.text.strip() in _SENTENCE_ENDS:
                word = replace(word, end=word.start + longest)
            elif not done or done[-1].text.strip() in _SENTENCE_ENDS:
                word = replace(word, start=word.end - longest)
        done.append(word)
    return done


def _usual(words: list[TimedWord]) -> float:
    """How long a word usually takes here, at most 0.7 s; 0 if none takes any time."""
    taken = [one.end - one.start for one in words if one.end > one.start]
    return min(0.7, float(np.median(taken))) if taken else 0.0


def _merged(words: list[TimedWord]) -> list[TimedWord]:
    """Opening punctuation with the word behind it, closing punctuation with the one before. It is not spoken,
    so the word's own times hold."""
    opened: list[TimedWord] = []  # from the last to the first
    for word in reversed(words):
        if opened and word.text.startswith(" ") and word.text.strip() in _WITH_NEXT:
            opened[-1] = _joined(word, opened[-1], opened[-1])
        else:
            opened.append(word)
    done: list[TimedWord] = []
    for word in reversed(opened):
        if done and word.text in _WITH_LAST and not done[-1].text.endswith(" "):
            done[-1] = _joined(done[-1], word, done[-1])
        else:
            done.append(word)
    return done


def _joined(left: TimedWord, right: TimedWord, spoken: TimedWord) -> TimedWord:
    return replace(spoken, text=left.text + right.text, tokens=left.tokens + right.tokens)
