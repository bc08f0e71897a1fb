"""Incremental detokenisation: ids in, whole characters out. Knows bytes, no stop strings and no requests."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable

from basert.text.vocabulary import Vocabulary


class Decoder:
    """However its ids are cut into pushes, the texts joined are the same.

    A character is held back until all its bytes are there; bytes that cannot become one turn into U+FFFD,
    as they do when everything is decoded at once.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        skip_special: bool = True,
        continues: bool = False,
        keep: Collection[int] = (),
    ) -> None:
        """continues: the text follows another one, so that its leading space is a real one. keep: special
        tokens that are not skipped."""
        self._vocabulary = vocabulary
        self._skip_special = skip_special
        self._keep = keep
        self._to_strip = 0 if continues else vocabulary.leading_spaces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that these ids complete."""
        raw = b"".join(
            self._vocabulary.token_bytes(token)
            for token in ids
            if not (self._skip_special and self._vocabulary.is_special(token) and token not in self._keep)
        )
        return self._strip(self._utf8.decode(raw))

    def flush(self) -> str:
        """What is still held back, at the end."""
        return self._strip(self._utf8.decode(b"", True))

    def _strip(self, text: str) -> str:
        if self._to_strip and text:
            spaces = min(self._to_strip, len(text) - len(text.lstrip(" ")))
            self._to_strip = self._to_strip - spaces if spaces == len(text) else 0
            return text[spaces:]
        return text
