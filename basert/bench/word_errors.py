"""How many words a transcript gets wrong, as Whisper's authors count: both texts are normalised before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from basert.errors import ConfigError


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Words put in, left out or written otherwise, in all texts, by the words that were said; 0 is the best.

    Raises ConfigError where the extra `peers` is not installed.
    """
    normal = _normaliser()
    wrong = words = 0
    for truth, text in zip(said, heard, strict=True):
        reference = normal(truth).split()
        wrong += edits(reference, normal(text).split())
        words += len(reference)
    return wrong / max(1, words)


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """The fewest words to put in, leave out or exchange that make the one of the other."""
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(one, other))


@cache
def _normaliser() -> Callable[[str], str]:
    """Whisper's, for English: case, marks, spellings, numbers and contractions do not count."""
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Counting word errors needs basert's extra `peers` ({error.name} is not installed):"
            " pip install 'basert[peers]'."
        ) from None
    found: Callable[[str], str] = EnglishTextNormalizer()
    return found
