"""POST /v1/rerank (also /rerank and /v2/rerank), and POST /v1/score."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from falcon.asgi import Request, Response
from msgspec import UNSET

from basert.http import media
from basert.http.openapi import operation
from basert.resources.choosing import encoder_for, only_encoder_for
from basert.resources.encoding import Encoding
from basert.resources.scoring import Pairs, Scored, scored
from basert.resources.service import Service
from basert.schema.encoding import CohereMeta, CohereTokens, EncoderUsage, cut_warning
from basert.schema.ranking import (
    Ranked,
    RankedDocument,
    RankedText,
    Ranking,
    RerankAnswer,
    RerankRequest,
)
from basert.schema.scoring import Score, ScoreRequest, Scores


class Rerank:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Texts by how well they answer a query.", RerankRequest, RerankAnswer)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, RerankRequest)
        request.check()
        choose = encoder_for if request.texts is None else only_encoder_for
        model, encoder = choose("rerank", request.model, self._service.models)
        encoding = Encoding(request, model, encoder, self._service, req)
        field = "documents" if request.texts is None else "texts"
        pairs = Pairs([request.query], request.passages, ("query", field))
        answers = await scored(encoding, request, pairs, request.per_document)
        best = sorted(range(len(pairs.others)), key=lambda i: -answers.scores[i])[: request.top_n or None]
        if request.texts is None:
            media.send_json(resp, _ranking(request, best, answers, model.name, encoding.longest))
        else:
            media.send_json(resp, _bare(request, best, answers.scores))


def _ranking(
    request: RerankRequest, best: Sequence[int], answers: Scored, model: str, longest: int
) -> Ranking:
    texts = request.passages if request.return_documents else []
    results = [Ranked(i, answers.scores[i], RankedDocument(texts[i]) if texts else UNSET) for i in best]
    meta = CohereMeta(
        tokens=CohereTokens(answers.tokens),
        billed_units={"search_units": 1},
        ranked_by=answers.by,
        warnings=cut_warning(answers.cut, longest),
    )
    usage = EncoderUsage(answers.tokens, answers.tokens)
    return Ranking(f"rerank-{uuid.uuid4().hex}", model, results, meta, usage)


def _bare(request: RerankRequest, best: Sequence[int], scores: Sequence[float]) -> list[RankedText]:
    texts = request.passages if request.return_text else []
    return [RankedText(i, scores[i], texts[i] if texts else UNSET) for i in best]


class ScoreCollection:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("How well pairs of texts go together.", ScoreRequest, Scores)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, ScoreRequest)
        ones, others, fields = request.sides
        model, encoder = encoder_for("rerank", request.model, self._service.models)
        encoding = Encoding(request, model, encoder, self._service, req)
        answers = await scored(encoding, request, Pairs(ones, others, fields))
        data = [Score(i, score) for i, score in enumerate(answers.scores)]
        usage = EncoderUsage(answers.tokens, answers.tokens)
        answer = Scores(f"score-{uuid.uuid4().hex}", int(time.time()), model.name, data, usage)
        media.send_json(resp, answer)
