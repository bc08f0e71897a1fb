"""GET /v1/models and /v1/models/{id}; ids may contain slashes."""

from __future__ import annotations

from falcon.asgi import Request, Response
from msgspec import UNSET

from basert import schema
from basert.http import media
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.choosing import task_of
from basert.resources.planning import context_of
from basert.resources.service import Service
from basert.schema.others import ModelCard, ModelList


class ModelCollection:
    def __init__(self, service: Service) -> None:
        self._models = service.models

    @operation("The models served here.", None, ModelList)
    async def on_get(self, _req: Request, resp: Response) -> None:
        cards = []
        for model in self._models.all():
            cards += [_card(model, name) for name in (model.name, *model.aliases)]
            cards += [_card(model.adapted(info), info.name) for info in model.adapters]
        media.send_json(resp, ModelList(cards))


class ModelItem:
    def __init__(self, service: Service) -> None:
        self._models = service.models

    @operation("One model.", None, ModelCard)
    async def on_get(self, _req: Request, resp: Response, model: str) -> None:
        media.send_json(resp, _card(self._models.get(model), model))


def _card(model: Model, name: str) -> ModelCard:
    encoder, speech = model.manifest.encoder, model.manifest.speech
    task = task_of(model.manifest)
    card = ModelCard(name, model.created, context_of(model), schema.fingerprint(model.digest), task)
    card.parent = model.parent or UNSET
    if encoder is not None:
        card.dimensions = encoder.width if encoder.task == "embedding" else UNSET
        card.labels = encoder.labels or UNSET
        card.prompts = list(encoder.prompts) or UNSET
    if speech is not None:
        card.languages = list(speech.languages) or ["en"]
        card.translates = speech.translate is not None
    return card
