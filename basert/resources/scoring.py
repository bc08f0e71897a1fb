"""Scores of pairs of texts: by a cross-encoder, or by the similarity of their vectors. Knows no wire form."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falcon.asgi import Request

from basert.http.limits import too_long
from basert.http.models import Model
from basert.manifest import Encoder
from basert.resources.encoding import Inputs, encoded, tokenized
from basert.resources.planning import beside, context_of
from basert.resources.service import Service
from basert.schema.encoding import prompt_for
from basert.schema.ranking import ScoringRequest
from basert.text.cutting import Cut, Ids

if TYPE_CHECKING:
    from basert.vectors import Scores

CROSS_ENCODER = "cross-encoder"


@dataclass(frozen=True)
class Pairs:
    """The first text of each pair (or the one that all have), the second, and the fields they came from."""

    ones: Sequence[str]
    others: Sequence[str]
    fields: tuple[str, str]

    def together(self) -> Inputs:
        ones = self.ones if len(self.ones) > 1 else [*self.ones] * len(self.others)
        return Inputs(list(zip(ones, self.others, strict=True)), self.fields[1])


@dataclass(frozen=True)
class Scored:
    scores: list[float]  # of each pair
    tokens: int
    cut: int  # texts that were too long
    by: str  # "cross-encoder" | "cosine" | "dot"


class Scorer:
    """What scores the pairs of one request."""

    def __init__(
        self, request: ScoringRequest, model: Model, encoder: Encoder, service: Service, req: Request
    ) -> None:
        self._request = request
        self._model = model
        self._encoder = encoder
        self._service = service
        self._req = req

    async def scored(self, pairs: Pairs, per_text: int | None = None) -> Scored:
        """per_text: second texts are cut to so many tokens, and to what there is room for; None: they are cut
        as the request says, which is else refused.

        Raises InvalidRequest, ContextLengthExceeded and what the engine client raises.
        """
        for texts, field in ((pairs.ones, pairs.fields[0]), (pairs.others, pairs.fields[1])):
            Inputs(texts, field).check(self._service.config)
        if self._encoder.task == "embedding":
            return await self._compared(pairs, per_text)
        made = await beside(lambda: self._paired(pairs, per_text), self._model, self._req)
        rows = (await self.classified(made)).tolist()
        return Scored([row[0] for row in rows], made.tokens, made.cut, CROSS_ENCODER)

    async def classified(self, made: Ids) -> Scores:
        """What the head makes of each input: [inputs, labels], by its activation or (if wanted) raw."""
        from basert import vectors

        table = await encoded(made, self._model, self._request, self._service, self._req)
        return vectors.scores(table, "none" if self._request.raw else self._encoder.activation)

    def _paired(self, pairs: Pairs, per_text: int | None) -> Ids:
        """May take long."""
        cut = self._cut(per_text, self._before(pairs) if per_text is not None else 0)
        return tokenized(pairs.together(), self._model, cut, add_special=self._request.adds_special)

    def _before(self, pairs: Pairs) -> int:
        """Tokens of a query and all that is not the document. Raises ContextLengthExceeded."""
        tokens = len(self._model.text.encode_batch([(pairs.ones[0], "")]).ids[0])
        if tokens >= context_of(self._model):
            raise too_long(context_of(self._model), str(tokens), pairs.fields[0], f"'{pairs.fields[0]}'")
        return tokens

    def _cut(self, per_text: int | None, before: int = 0) -> Cut | None:
        longest = context_of(self._model)
        cut = self._request.cut(longest)
        if per_text is None:
            return cut
        most = min(cut.most if cut else longest, before + per_text)
        return Cut(most, from_start=self._request.cuts_start)

    async def _compared(self, pairs: Pairs, per_text: int | None) -> Scored:
        from basert import vectors

        made = await beside(lambda: self._apart(pairs, per_text), self._model, self._req)
        table = await encoded(made, self._model, self._request, self._service, self._req)
        ones, others = table[: len(pairs.ones)], table[len(pairs.ones) :]
        similarities = vectors.similarities(ones, others, self._encoder.similarity)
        return Scored(similarities, made.tokens, made.cut, self._encoder.similarity)

    def _apart(self, pairs: Pairs, per_text: int | None) -> Ids:
        """First the ones, then the others, with the prompts that the model has for them. May take long."""
        query, document = (prompt_for(kind, self._encoder) for kind in ("query", "document"))
        special = self._model.text.special_tokens
        sides = (
            (pairs.ones, query, None, pairs.fields[0]),
            (pairs.others, document, per_text, pairs.fields[1]),
        )
        made = [
            tokenized(
                Inputs([prompt + text for text in texts], field),
                self._model,
                self._cut(most, special),
                add_special=self._request.adds_special,
            )
            for texts, prompt, most, field in sides
        ]
        return made[0].and_(made[1])


def unlimited(per_text: int | None) -> int:
    return per_text if per_text is not None else sys.maxsize
