"""POST /v1/embeddings, and requests for vectors as text-embeddings-inference and Cohere have them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.encoding import CohereMeta, EncoderUsage, PromptedRequest
from basert.schema.extras import Unsupported
from basert.schema.parsing import given
from basert.schema.texts import Texts

# A vector as it is written: its JSON is made apart from everything else.
Vector = Annotated[
    msgspec.Raw,
    Meta(
        description="Numbers, or base64 of little-endian float32.",
        extra_json_schema={"type": ["array", "string"], "items": {"type": "number"}},
    ),
]


class EmbeddingsRequest(PromptedRequest, kw_only=True):
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None


class Embedding(msgspec.Struct):
    index: int
    embedding: Vector
    object: Literal["embedding"] = "embedding"


class Embeddings(msgspec.Struct):
    data: list[Embedding]
    model: str
    usage: EncoderUsage
    object: Literal["list"] = "list"


class EmbedRequest(PromptedRequest, kw_only=True):
    """As text-embeddings-inference has it: vectors have length 1 unless `normalize` is false."""

    inputs: Texts

    def check(self) -> None:
        self.normalize = True if self.normalize is None else self.normalize


class CohereEmbedRequest(PromptedRequest, kw_only=True):
    """As Cohere has it: a text that is too long loses its end unless `truncate` says something else."""

    texts: Annotated[list[str], Meta(min_length=1)]
    embedding_types: Annotated[list[Literal["float", "base64"]], Meta(min_length=1)] | None = None
    output_dimension: Annotated[int, Meta(ge=1, le=2**31 - 1, description="dimensions.")] | None = None
    images: Unsupported = None
    inputs: Unsupported = None

    def check(self) -> None:
        for field in ("images", "inputs"):
            if given(getattr(self, field)):
                raise InvalidRequest(f"Only 'texts' are embedded; leave '{field}' out.", param=field)
        if len(self.embedding_types or ()) > 1:
            raise InvalidRequest("Send one of the 'embedding_types'.", param="embedding_types")
        self.dimensions = self.output_dimension or self.dimensions
        self.truncate = "END" if self.truncate is None else self.truncate


class CohereEmbeddings(msgspec.Struct):
    """`embeddings` is a list of vectors, or such a list by its type if one was asked for."""

    embeddings: list[Vector] | dict[str, list[Vector]]
    id: str
    texts: list[str]
    meta: CohereMeta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
