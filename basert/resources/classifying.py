"""POST /v1/classify, as vLLM has it, and /predict, as text-embeddings-inference has it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from falcon.asgi import Request, Response

from basert.errors import InvalidRequest
from basert.http import media
from basert.http.models import Model
from basert.http.openapi import operation
from basert.manifest import Encoder
from basert.resources.choosing import encoder_for, only_encoder_for
from basert.resources.encoding import Encoding, Inputs
from basert.resources.scoring import classified
from basert.resources.service import Service
from basert.schema.encoding import EncoderUsage
from basert.schema.scoring import Classification, Classified, ClassifyAnswer, ClassifyRequest, LabelScore
from basert.schema.texts import listed


class Classify:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Texts by label.", ClassifyRequest, ClassifyAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, ClassifyRequest)
        request.check()
        choose = encoder_for if request.inputs is None else only_encoder_for
        model, encoder = choose("classify", request.model, self._service.models)
        inputs = _inputs(request, encoder)
        inputs.check(self._service.config)
        encoding = Encoding(request, model, encoder, self._service, req)
        made = await encoding.ids(inputs)
        rows = (await classified(encoding, request, made)).tolist()
        if request.inputs is None:
            media.send_json(resp, _classification(rows, encoder, model, made.tokens))
        else:
            lists = [_by_score(row, encoder) for row in rows]
            media.send_json(resp, lists if request.is_batch else lists[0])


def _inputs(request: ClassifyRequest, encoder: Encoder) -> Inputs:
    if request.input is not None:
        return Inputs(listed(request.input, "input"), "input")
    sequences = request.sequences
    if not encoder.pairs and any(isinstance(one, tuple) for one in sequences):
        raise InvalidRequest(
            "This model takes no pairs of texts; send a list of lists of one text each.", param="inputs"
        )
    return Inputs(sequences, "inputs")


def _classification(
    rows: Sequence[Sequence[float]], encoder: Encoder, model: Model, tokens: int
) -> Classification:
    data = [
        Classified(i, encoder.labels[max(range(len(row)), key=row.__getitem__)], list(row), len(row))
        for i, row in enumerate(rows)
    ]
    name = f"classify-{uuid.uuid4().hex}"
    return Classification(name, int(time.time()), model.name, data, EncoderUsage(tokens, tokens))


def _by_score(row: Sequence[float], encoder: Encoder) -> list[LabelScore]:
    scores = [LabelScore(score, label) for score, label in zip(row, encoder.labels, strict=True)]
    return sorted(scores, key=lambda one: -one.score)
