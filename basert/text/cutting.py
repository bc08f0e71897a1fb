"""Texts too long for an encoder: cut before the special tokens are put around them. Knows the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

Text = str | tuple[str, str]  # or a pair, which makes one input


class Ids(NamedTuple):
    """What a tokenizer made of texts: of each its ids, and to which text of a pair each of them belongs."""

    ids: list[list[int]]
    types: list[list[int]]
    cut: int = 0  # how many of them were too long

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    def and_(self, others: Ids) -> Ids:
        return Ids(self.ids + others.ids, self.types + others.types, self.cut + others.cut)


@dataclass(frozen=True)
class Cut:
    """Keep so many tokens, special ones included. Of a pair the second text is cut, the first only if that is
    not enough."""

    most: int
    from_start: bool = False  # what is cut off


def shortened(
    tokenizer: Tokenizer, texts: Sequence[Text], cut: Cut, *, add_special: bool = True
) -> list[Encoding]:
    """Texts that are too long, cut. One whose special tokens alone are too many keeps those."""
    pairs = [text if isinstance(text, tuple) else (text, "") for text in texts]
    parts = tokenizer.encode_batch_fast([part for pair in pairs for part in pair], add_special_tokens=False)
    return [
        _shortened(tokenizer, parts[2 * i : 2 * i + (2 if isinstance(text, tuple) else 1)], cut, add_special)
        for i, text in enumerate(texts)
    ]


def _shortened(tokenizer: Tokenizer, parts: list[Encoding], cut: Cut, add_special: bool) -> Encoding:
    special = tokenizer.num_special_tokens_to_add(len(parts) > 1) if add_special else 0
    room = max(0, cut.most - special)
    first, second = parts[0], parts[1] if len(parts) > 1 else None
    if second is not None:
        _cut(second, max(0, room - len(first)), cut)
        room -= len(second)
    _cut(first, room, cut)
    return tokenizer.post_process(first, second, add_special)


def _cut(encoding: Encoding, most: int, cut: Cut) -> None:
    if len(encoding) > most:
        encoding.truncate(most, direction="left" if cut.from_start else "right")
