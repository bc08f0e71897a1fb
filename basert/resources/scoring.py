"""Scores of pairs of texts: by a cross-encoder, or by the similarity of their vectors. Knows no wire form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from basert.http.limits import too_long
from basert.resources.encoding import Encoding, Inputs
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


async def scored(
    encoding: Encoding, request: ScoringRequest, pairs: Pairs, per_text: int | None = None
) -> Scored:
    """per_text: second texts are cut to so many tokens, and to what there is room for; None: they are cut
    as the request says, and refused if it does not.

    Raises InvalidRequest, ContextLengthExceeded and what the engine client raises.
    """
    for texts, field in ((pairs.ones, pairs.fields[0]), (pairs.others, pairs.fields[1])):
        Inputs(texts, field).check(encoding.service.config)
    if encoding.encoder.task == "embedding":
        return await _compared(encoding, pairs, per_text)
    made = await encoding.beside(lambda: _paired(encoding, pairs, per_text))
    rows = (await classified(encoding, request, made)).tolist()
    return Scored([row[0] for row in rows], made.tokens, made.cut, CROSS_ENCODER)


async def classified(encoding: Encoding, request: ScoringRequest, made: Ids) -> Scores:
    """What the head makes of each input: [inputs, labels], by its activation or (if wanted) raw."""
    from basert import vectors

    table = await encoding.answers(made)
    return vectors.scores(table, "none" if request.raw else encoding.encoder.activation)


def _paired(encoding: Encoding, pairs: Pairs, per_text: int | None) -> Ids:
    """May take long."""
    before = _before(encoding, pairs) if per_text is not None else 0
    return encoding.tokenized(pairs.together(), _cut(encoding, per_text, before))


def _before(encoding: Encoding, pairs: Pairs) -> int:
    """Tokens of a query and all that is not the document. Raises ContextLengthExceeded."""
    tokens = encoding.model.text.encode_batch([(pairs.ones[0], "")]).tokens
    if tokens >= encoding.longest:
        raise too_long(encoding.longest, str(tokens), pairs.fields[0], f"'{pairs.fields[0]}'")
    return tokens


def _cut(encoding: Encoding, per_text: int | None, before: int) -> Cut | None:
    """before: tokens beside those of the text that is cut."""
    cut = encoding.request.cut(encoding.longest)
    if per_text is None:
        return cut
    most = min(cut.most if cut else encoding.longest, before + per_text)
    return Cut(most, from_start=encoding.request.cuts_start)


async def _compared(encoding: Encoding, pairs: Pairs, per_text: int | None) -> Scored:
    from basert import vectors

    made = await encoding.beside(lambda: _apart(encoding, pairs, per_text))
    table = await encoding.answers(made)
    ones, others = table[: len(pairs.ones)], table[len(pairs.ones) :]
    measure = encoding.encoder.similarity
    return Scored(vectors.similarities(ones, others, measure), made.tokens, made.cut, measure)


def _apart(encoding: Encoding, pairs: Pairs, per_text: int | None) -> Ids:
    """First the ones, then the others, with the prompts that the model has for them. May take long."""

    def side(texts: Sequence[str], field: str, kind: str, most: int | None) -> Ids:
        prompt = prompt_for(kind, encoding.encoder)
        inputs = Inputs([prompt + text for text in texts], field)
        return encoding.tokenized(inputs, _cut(encoding, most, encoding.model.text.special_tokens))

    queries = side(pairs.ones, pairs.fields[0], "query", None)
    return queries.and_(side(pairs.others, pairs.fields[1], "document", per_text))
