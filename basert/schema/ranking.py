"""POST /v1/rerank as Cohere, Jina and vLLM have it, and as text-embeddings-inference does (with `texts`)."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.schema.encoding import CohereMeta, EncoderRequest, EncoderUsage
from basert.schema.extras import Unsupported
from basert.schema.parsing import given


class ScoringRequest(EncoderRequest, kw_only=True):
    """Whatever a head's logits make."""

    raw_scores: Annotated[bool, Meta(description="Logits as they are.")] | None = None
    use_activation: Annotated[bool, Meta(description="false: the same as raw_scores.")] | None = None

    @property
    def raw(self) -> bool:
        return bool(self.raw_scores) or self.use_activation is False


class RerankText(msgspec.Struct):
    """A document; what else it has is ignored."""

    text: str


class RerankRequest(ScoringRequest, kw_only=True):
    query: str
    documents: Annotated[list[str | RerankText], Meta(min_length=1)] | None = None
    texts: Annotated[list[str], Meta(min_length=1)] | None = None
    top_n: Annotated[int, Meta(ge=0, le=2**31 - 1, description="0: all.")] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_chunks_per_doc: Annotated[int, Meta(ge=1, le=2**31 - 1, description="One is made.")] | None = None
    rank_fields: Unsupported = None

    def check(self) -> None:
        if (self.documents is None) == (self.texts is None):
            raise InvalidRequest("Send either 'documents' or 'texts'.", param="documents")
        if given(self.rank_fields) and self.rank_fields != ["text"]:
            raise InvalidRequest(
                "A document is ranked by its text; leave 'rank_fields' out.", param="rank_fields"
            )

    @property
    def per_document(self) -> int | None:
        """Tokens that a document is cut to; None: it is not cut unless `cut` says so."""
        strict = self.texts is not None or self.truncate in (False, "NONE")
        return self.max_tokens_per_doc or (None if strict else sys.maxsize)

    @property
    def passages(self) -> list[str]:
        documents = self.texts or self.documents or []
        return [one if isinstance(one, str) else one.text for one in documents]


class RankedDocument(msgspec.Struct):
    text: str


class Ranked(msgspec.Struct):
    index: int  # among the documents of the request
    relevance_score: float
    document: RankedDocument | UnsetType = UNSET


class Ranking(msgspec.Struct):
    """The best comes first."""

    id: str
    model: str
    results: list[Ranked]
    meta: CohereMeta
    usage: EncoderUsage


class RankedText(msgspec.Struct):
    index: int
    score: float
    text: str | UnsetType = UNSET


RerankAnswer = Ranking | list[RankedText]
