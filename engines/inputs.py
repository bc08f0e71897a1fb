"""Requests to an encoder: checked, and their token ids as arrays, before they wait. Knows no queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basert.messages import Encode, Failed
from engines.encoder_runner import Ids, Row
from engines.packing import Request

MOST_TOKEN_TYPES = 2  # a text's, and that of the second text of a pair


@dataclass(frozen=True)
class Accepted:
    """What an encoder takes."""

    vocab_size: int
    max_tokens: int  # of an input
    token_types: bool


class Refused(Exception):
    """Of a request, in one sentence."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code


def admit(peer: int, message: Encode, accepted: Accepted, arrived: float) -> Request | Failed:
    """The request, or why it cannot be run. Everything later relies on what is checked here."""
    try:
        lengths = _lengths(message, accepted)
        ids = _split(message.inputs, lengths, accepted.vocab_size, "token ids outside of the vocabulary of")
        types: Iterable[Ids | None] = repeat(None)
        if message.token_types:
            types = _split(message.token_types, lengths, MOST_TOKEN_TYPES, "token types that are not below")
    except Refused as refused:
        return Failed(message.id, refused.code, str(refused))
    rows = [Row(*row) for row in zip(ids, types, strict=False)]
    return Request(peer, message.id, message.priority, arrived, rows)


def _lengths(message: Encode, accepted: Accepted) -> list[int]:
    lengths = list(map(len, message.inputs))
    if not lengths:
        raise Refused("There is no input; send at least one.")
    if not all(lengths):
        raise Refused(f"Input {lengths.index(0)} is empty; it needs at least one token.")
    if max(lengths) > accepted.max_tokens:
        index = next(i for i, length in enumerate(lengths) if length > accepted.max_tokens)
        raise Refused(
            f"This model takes {accepted.max_tokens} tokens at most, and input {index} has {lengths[index]}; "
            "shorten it.",
            "context_length_exceeded",
        )
    if message.token_types:
        _check_types(message, lengths, accepted)
    return lengths


def _check_types(message: Encode, lengths: Sequence[int], accepted: Accepted) -> None:
    if not accepted.token_types:
        raise Refused("This model takes no token types; send none.")
    types = list(map(len, message.token_types))
    if len(types) != len(lengths):
        raise Refused(f"There are {len(lengths)} inputs and token types for {len(types)}; send one each.")
    for index, (length, count) in enumerate(zip(lengths, types, strict=True)):
        if length != count:
            raise Refused(f"Input {index} has {length} tokens and {count} token types; send one each.")


def _split(lists: Sequence[Sequence[int]], lengths: Sequence[int], below: int, what: str) -> list[Ids]:
    """An array for each list, all of them views of one. Raises Refused for a number outside of [0, below)."""
    try:
        flat: NDArray[Any] = np.fromiter(chain.from_iterable(lists), np.int64, count=sum(lengths))
        fine = flat.min() >= 0 and flat.max() < below
    except OverflowError:
        fine = False
    if not fine:
        index = next(i for i, numbers in enumerate(lists) if not 0 <= min(numbers) <= max(numbers) < below)
        raise Refused(f"Input {index} holds {what} {below}.")
    return [flat[first:last] for first, last in pairwise(accumulate(lengths, initial=0))]
