"""The lines of a batch's input, each read where it stands in the file. Knows no record and no model."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec

from basert.schema.batches import InputLine

PIECE = 1 << 20  # bytes of a line that are held while the file is looked through


class Lines:
    """Those lines that say something, by their place among them."""

    def __init__(self, path: Path) -> None:
        """Reads the whole file: slow. Raises OSError."""
        self._file = path.open("rb")
        self._numbers, self._starts, self._lengths = array("Q"), array("Q"), array("Q")
        start = length = 0
        number, blank = 1, True
        while piece := self._file.readline(PIECE):
            length += len(piece)
            blank = blank and piece.isspace()
            if piece.endswith(b"\n"):
                self._add(number, start, length, blank)
                start, length, number, blank = start + length, 0, number + 1, True
        self._add(number, start, length, blank)

    def _add(self, number: int, start: int, length: int, blank: bool) -> None:
        if not blank:
            self._numbers.append(number)
            self._starts.append(start)
            self._lengths.append(length)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, place: int) -> int:
        """In the file, blank lines counted; the first is 1."""
        return self._numbers[place]

    def length(self, place: int) -> int:
        """In bytes, with its end."""
        return self._lengths[place]

    def read(self, place: int) -> InputLine:
        """Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for a line that is no request."""
        self._file.seek(self._starts[place])
        return msgspec.json.decode(self._file.read(self._lengths[place]), type=InputLine)

    def close(self) -> None:
        self._file.close()
