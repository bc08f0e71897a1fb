"""POST /v1/embeddings: request and answer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from basert.schema.encoding import EncoderUsage, PromptedRequest
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
