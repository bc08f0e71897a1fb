"""Distinct prompts of exact token counts, as token ids. Knows who tokenises, and no tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from basert.client import Client, RequestFailed

SENTENCES = (
    "The ferry leaves the harbour at seven and comes back when the tide allows it.",
    "A baker two streets away has been using the same oven since before the war.",
    "Most of the letters were answered on the day they came, the others never.",
    "Snow had fallen on the upper road, so the bus took the long way around the lake.",
    "She counted the coins twice and put them back into the jar without a word.",
    "In the third year of the drought the river could be crossed on foot.",
    "Engineers prefer small surprises; their customers prefer none at all.",
    "The museum keeps its oldest maps in a cold room behind two heavy doors.",
    "Nobody remembered who had planted the walnut tree in front of the school.",
    "He explained how a lock works, and why the water never runs uphill.",
    "Every winter the choir meets in a hall that is too large for it.",
    "The report lists the costs by month, and the savings in a single line.",
)


class Prompts:
    """Shuffled ordinary sentences, cut to length. No two begin alike, so that no cache can share them."""

    def __init__(self, sentences: list[list[int]], seed: int = 0) -> None:
        self._sentences = sentences
        self._ids = sorted({token for sentence in sentences for token in sentence})
        self._random = random.Random(seed)

    @classmethod
    async def from_server(cls, client: Client, model: str) -> Prompts:
        """Raises RequestFailed where there is neither /v1/tokenize nor /tokenize."""
        return cls([await _tokenize(client, model, " " + text) for text in SENTENCES])

    @classmethod
    def from_encoder(cls, encode: Callable[[str], list[int]], seed: int = 0) -> Prompts:
        """encode: a text's token ids, without any that a tokenizer puts around it."""
        return cls([encode(" " + text) for text in SENTENCES], seed)

    def draw(self, length: int) -> list[int]:
        """Exactly `length` token ids."""
        ids = self._random.choices(self._ids, k=min(4, length))
        while len(ids) < length:
            ids += self._random.choice(self._sentences)
        return ids[:length]

    def draw_many(self, count: int, length: int, shared: int = 0) -> list[list[int]]:
        """`count` prompts whose first `shared` tokens are alike, and like no other prompt's."""
        prefix = self.draw(shared)
        return [prefix + self.draw(length - shared) for _ in range(count)]


async def _tokenize(client: Client, model: str, text: str) -> list[int]:
    """vLLM's request and llama.cpp's are one: each server reads the fields that it knows."""
    body = {"model": model, "prompt": text, "content": text, "add_special_tokens": False}
    try:
        answer: dict[str, Any] = await client.post("/v1/tokenize", body)
    except RequestFailed as error:
        if error.http_status != 404:
            raise
        answer = await client.post("/tokenize", body)
    ids: list[int] = answer["tokens"]
    return ids
