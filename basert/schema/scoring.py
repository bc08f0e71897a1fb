"""POST /v1/score and /v1/classify as vLLM has them, and text-embeddings-inference's /predict."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.encoding import EncoderUsage
from basert.schema.ranking import ScoringRequest
from basert.schema.texts import Texts

Strings = str | Annotated[list[str], Meta(min_length=1)]
SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class ScoreRequest(ScoringRequest, kw_only=True):
    """Two texts, one and several, or two lists as long as each other, under one of four pairs of names."""

    text_1: Strings | None = None
    text_2: Strings | None = None
    queries: Strings | None = None
    documents: Strings | None = None
    items: Strings | None = None
    data_1: Strings | None = None
    data_2: Strings | None = None

    @property
    def sides(self) -> tuple[list[str], list[str], tuple[str, str]]:
        """The first texts (one, or as many as there are others), the others, and both fields' names.

        Raises InvalidRequest.
        """
        given = [pair for pair in SIDES if all(getattr(self, field) is not None for field in pair)]
        if not given:
            raise InvalidRequest("Send 'text_1' and 'text_2', or 'queries' and 'documents'.", param="text_1")
        one, other = ([side] if isinstance(side, str) else side for side in self._pair(given[0]))
        if len(one) not in (1, len(other)):
            raise InvalidRequest(
                f"'{given[0][0]}' has {len(one)} texts and '{given[0][1]}' {len(other)}; "
                "send one for all, or as many.",
                param=given[0][0],
            )
        return one, other, given[0]

    def _pair(self, fields: tuple[str, str]) -> list[str | list[str]]:
        return [getattr(self, field) for field in fields]


class Score(msgspec.Struct):
    index: int
    score: float
    object: Literal["score"] = "score"


class Scores(msgspec.Struct):
    id: str
    created: int
    model: str
    data: list[Score]
    usage: EncoderUsage
    object: Literal["list"] = "list"


class ClassifyRequest(ScoringRequest, kw_only=True):
    """`input` as vLLM has it, or `inputs` as text-embeddings-inference: a text, a list of one or two (which
    are a pair), or a list of such lists."""

    input: Texts | None = None
    inputs: str | Annotated[list[str | list[str]], Meta(min_length=1)] | None = None

    def check(self) -> None:
        if (self.input is None) == (self.inputs is None):
            raise InvalidRequest("Send either 'input' or 'inputs'.", param="input")

    @property
    def sequences(self) -> list[str | tuple[str, str]]:
        """What `inputs` holds. Raises InvalidRequest."""
        inputs = self.inputs or []
        batch = [inputs] if isinstance(inputs, str) or isinstance(inputs[0], str) else inputs
        return [_sequence(one) for one in batch]

    @property
    def is_batch(self) -> bool:
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)


def _sequence(texts: str | list[str] | list[str | list[str]]) -> str | tuple[str, str]:
    match texts:
        case str(text) | [str(text)]:
            return text
        case [str(one), str(other)]:
            return one, other
    raise InvalidRequest(
        "Invalid 'inputs': expected a text, a list of one or two texts, or a list of such lists.",
        param="inputs",
    )


class Classified(msgspec.Struct):
    index: int
    label: str  # the likeliest
    probs: list[float]  # in the order of the model's labels
    num_classes: int


class Classification(msgspec.Struct):
    id: str
    created: int
    model: str
    data: list[Classified]
    usage: EncoderUsage
    object: Literal["list"] = "list"


class LabelScore(msgspec.Struct):
    score: float
    label: str


ClassifyAnswer = Classification | list[LabelScore | list[LabelScore]]
