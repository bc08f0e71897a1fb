"""A front before a transcriber that says the same of everything: real HTTP, words that anybody knows.

With --deaf it says something else; with --timeless it knows no times; it notes what it was sent in a folder.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from basert.bench.peers.fronts.transcriptions import Front, Transcriber

SAID = "Seven boats lie in the harbour."


class Parrot(Transcriber):
    workers = 2

    def __init__(self, folder: Path, said: str, timeless: bool) -> None:
        self._folder, self._said, self._timeless = folder, said, timeless

    def transcribe(self, sound: bytes, *, segments: bool, words: bool) -> dict[str, Any]:
        name = hashlib.sha256(sound).hexdigest()
        with (self._folder / name).open("ab") as file:  # once more for each time that it is sent
            file.write(b".")
        answer: dict[str, Any] = {"text": self._said}
        if segments and not self._timeless:
            answer["segments"] = [{"start": 0.0, "end": 0.5, "text": self._said}]
        if words and not self._timeless:
            answer["words"] = [{"start": 0.0, "end": 0.1, "word": "Seven"}]
        return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--timeless", action="store_true")
    args = parser.parse_args()
    said = "Nothing of that kind was ever spoken here." if args.deaf else SAID
    Front(Parrot(args.folder, said, args.timeless), "parrot").serve(args.port)


if __name__ == "__main__":
    main()
