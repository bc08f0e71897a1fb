"""Distinct prompts of exact token counts, as token ids. Knows /v1/tokenize, and no tokenizer."""

from __future__ import annotations

import random

from basert.client import Client

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
        """Raises RequestFailed where there is no /v1/tokenize."""
        bodies = [{"model": model, "prompt": " " + text, "add_special_tokens": False} for text in SENTENCES]
        return cls([(await client.post("/v1/tokenize", body))["tokens"] for body in bodies])

    def draw(self, length: int) -> list[int]:
        """Exactly `length` token ids."""
        ids = self._random.choices(self._ids, k=min(4, length))
        while len(ids) < length:
            ids += self._random.choice(self._sentences)
        return ids[:length]
