"""POST /v1/embeddings, /embed of text-embeddings-inference, /v1/embed and /v2/embed of Cohere."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec
from falcon.asgi import Request, Response
from msgspec import Raw

from basert.errors import InvalidRequest
from basert.http.openapi import operation
from basert.manifest import Encoder
from basert.resources.choosing import encoder_for, only_encoder_for
from basert.resources.encoding import Encoding, Inputs
from basert.resources.rows import around, send_rows
from basert.resources.service import Service
from basert.schema.embeddings import (
    CohereEmbeddings,
    CohereEmbedRequest,
    Embedding,
    Embeddings,
    EmbeddingsRequest,
    EmbedRequest,
)
from basert.schema.encoding import CohereMeta, CohereTokens, EncoderUsage, PromptedRequest, cut_warning
from basert.schema.texts import listed
from basert.text.cutting import Ids


class EmbeddingCollection:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Vectors of texts.", EmbeddingsRequest, Embeddings)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, EmbeddingsRequest)
        model, encoder = encoder_for("embed", request.model, self._service.models)
        encoding = Encoding(request, model, encoder, self._service, req)
        inputs = Inputs(listed(request.input, "input"), "input")
        made, slices = await embedded(encoding, request, inputs, request.encoding_format)
        answer = Embeddings([], model.name, EncoderUsage(made.tokens, made.tokens))
        patience = self._service.config.stall_timeout
        await send_rows(resp, _items(slices), around(answer, "data"), patience)


class BareEmbeddings:
    """As text-embeddings-inference has them; vectors have length 1 unless that is refused."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Vectors of texts, as a list of lists.", EmbedRequest, list[list[float]])
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, EmbedRequest)
        request.check()
        model, encoder = only_encoder_for("embed", request.model, self._service.models)
        encoding = Encoding(request, model, encoder, self._service, req)
        _, slices = await embedded(encoding, request, Inputs(listed(request.inputs, "inputs"), "inputs"))
        await send_rows(resp, slices, (b"[", b"]"), self._service.config.stall_timeout)


class CohereEmbed:
    """As Cohere has them: POST /v1/embed and /v2/embed."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Vectors of texts, as Cohere has them.", CohereEmbedRequest, CohereEmbeddings)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, CohereEmbedRequest)
        request.check()
        model, encoder = encoder_for("embed", request.model, self._service.models)
        by_type = bool(request.embedding_types) or req.path.startswith("/v2/")
        form = request.embedding_types[0] if request.embedding_types else "float"
        encoding = Encoding(request, model, encoder, self._service, req)
        made, slices = await embedded(encoding, request, Inputs(request.texts, "texts"), form)
        answer = CohereEmbeddings(
            {form: []} if by_type else [],
            f"embed-{uuid.uuid4().hex}",
            request.texts,
            CohereMeta(
                tokens=CohereTokens(made.tokens),
                billed_units={"input_tokens": made.tokens},
                warnings=cut_warning(made.cut, encoding.longest),
            ),
            "embeddings_by_type" if by_type else "embeddings_floats",
        )
        frame = around(answer, form if by_type else "embeddings")
        await send_rows(resp, slices, frame, self._service.config.stall_timeout)


def _items(slices: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    index = 0
    for rows in slices:
        yield [msgspec.json.encode(Embedding(index + i, Raw(row))) for i, row in enumerate(rows)]
        index += len(rows)


async def embedded(
    encoding: Encoding, request: PromptedRequest, inputs: Inputs, form: str | None = None
) -> tuple[Ids, Iterator[list[bytes]]]:
    """The inputs' tokens, and their vectors as JSON, in slices. form: "float" | "base64"."""
    from basert import vectors

    encoder = encoding.encoder
    inputs.check(encoding.service.config)
    width, normalise = request.width(encoder), request.normalises(encoder)
    made = await encoding.ids(prompted(inputs, request, encoder))
    table = await encoding.answers(made)
    write = vectors.as_base64 if form == "base64" else vectors.as_floats
    again = normalise and (width < encoder.width or not encoder.normalised)
    return made, vectors.written(table, write, width, normalise=again)


def prompted(inputs: Inputs, request: PromptedRequest, encoder: Encoder) -> Inputs:
    """The texts with the prompt that they begin with. Raises InvalidRequest."""
    prompt = request.begins_with(encoder)
    if not isinstance(inputs.texts[0], list):
        return Inputs([f"{prompt}{text}" for text in inputs.texts], inputs.param) if prompt else inputs
    for field in ("prompt", "prompt_name", "input_type"):
        if getattr(request, field) is not None:
            raise InvalidRequest(
                f"Token ids are taken as they are; put the prompt's before them and leave '{field}' out.",
                param=field,
            )
    return inputs
