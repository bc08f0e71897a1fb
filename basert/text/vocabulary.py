"""Token ids to the bytes they stand for, read from the decoder a tokenizer.json declares.

Knows the decoders that models use: byte-level BPE (each character of a token is a byte), SentencePiece's (a
marker for the space, <0xNN> for single bytes) and WordPiece (a marker for what no space comes before). Knows
nothing of text that is half decoded.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tokenizers import Tokenizer

from basert.errors import BundleError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's stand-ins for the 256 bytes: the character itself if printable, else the next from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


class Vocabulary:
    """Bytes of each token. Raises BundleError for a tokenizer whose decoder cannot be streamed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = False
        self._byte_fallback = False
        self._continues = ""  # begins tokens that go on with a word; "": no such marker
        self._replacements: list[tuple[str, str]] = []
        self.leading_spaces = 0  # spaces that decoding drops from the start of a text
        for step in _steps(tokenizer):
            self._read(step)
        added = tokenizer.get_added_tokens_decoder()
        self.added = {token.content: number for number, token in added.items()}
        self._special = frozenset(number for number, token in added.items() if token.special)
        self._bytes: dict[int, bytes] = {}

    def _read(self, step: dict[str, Any]) -> None:
        match step:
            case {"type": "ByteLevel"}:
                self._byte_level = True
            case {"type": "ByteFallback"}:
                self._byte_fallback = True
            case {"type": "Fuse"}:
                pass
            case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
                self._replacements.append((pattern, content))
            case {"type": "Strip", "content": " ", "start": start, "stop": 0}:
                self.leading_spaces = start
            case {"type": "WordPiece", "prefix": prefix}:
                self._continues = prefix
                self.leading_spaces = 1
            case {"type": "Metaspace", "replacement": marker, "prepend_scheme": scheme}:
                self._replacements.append((marker, " "))
                self.leading_spaces = 0 if scheme == "never" else 1
            case _:
                raise BundleError(
                    f"The tokenizer's decoder has a step {step.get('type')!r} that cannot be streamed; "
                    "export a model with a byte-level, SentencePiece or WordPiece tokenizer."
                )

    @property
    def loses_nothing(self) -> bool:
        """Whether tokens are all of a text: there is none that stands for anything unknown, however long."""
        return self._byte_level or self._byte_fallback

    def token_bytes(self, number: int) -> bytes:
        """What the token adds to a text; nothing for an id outside of the vocabulary."""
        found = self._bytes.get(number)
        if found is None:
            found = self._bytes[number] = self._look_up(number)
        return found

    def is_special(self, number: int) -> bool:
        return number in self._special

    def _look_up(self, number: int) -> bytes:
        token = self._tokenizer.id_to_token(number)
        if token is None:
            return b""
        if self._byte_level:
            mapped = [_ALPHABET.get(char, -1) for char in token]
            return token.encode() if -1 in mapped else bytes(mapped)
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if self._continues:
            goes_on = token.startswith(self._continues)
            token = token.removeprefix(self._continues) if goes_on else " " + token
        for pattern, content in self._replacements:
            token = token.replace(pattern, content)
        return token.encode()


def _steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    if tokenizer.decoder is None:
        raise BundleError("The tokenizer declares no decoder; export from a complete checkpoint again.")
    state: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    return list(state["decoders"]) if state["type"] == "Sequence" else [state]
