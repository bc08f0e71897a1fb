"""GET /v1/models and /v1/models/{id}, and DELETE, which unloads; ids may contain slashes."""

from __future__ import annotations

from falcon.asgi import Request, Response
from msgspec import UNSET

from basert import schema
from basert.http import media
from basert.http.auth import require_admin
from basert.http.model import Model
from basert.http.models import Models
from basert.http.openapi import operation
from basert.messages import EngineState, UnloadModel
from basert.resources.choosing import task_of
from basert.resources.planning import context_of
from basert.resources.service import Service
from basert.schema.others import Loading, ModelCard, ModelDeleted, ModelList, Replica


class ModelCollection:
    def __init__(self, service: Service) -> None:
        self._models = service.models

    @operation("The models served here.", None, ModelList)
    async def on_get(self, _req: Request, resp: Response) -> None:
        models = self._models
        cards = [card(model, name, models) for model in models.all() for name in model.names]
        cards += [card(model, model.name, models) for model in models.adapters()]
        media.send_json(resp, ModelList(cards))


class ModelItem:
    def __init__(self, service: Service) -> None:
        self._models = service.models

    @operation("One model.", None, ModelCard)
    async def on_get(self, _req: Request, resp: Response, model: str) -> None:
        media.send_json(resp, card(self._models.find(model), model, self._models))

    @operation("Unload a model.", None, ModelDeleted)
    async def on_delete(self, req: Request, resp: Response, model: str) -> None:
        require_admin(req)
        await self._models.orders.give(lambda number: UnloadModel(number, model))
        media.send_json(resp, ModelDeleted(model))


def card(model: Model, name: str, models: Models) -> ModelCard:
    """A model as this name's."""
    encoder, speech = model.manifest.encoder, model.manifest.speech
    told = ModelCard(
        id=name,
        created=model.created,
        max_model_len=context_of(model),
        system_fingerprint=schema.fingerprint(model.digest),
        task=task_of(model.manifest),
        status=model.state,
        stage=model.stage,
        percent=_percent(model),
        replicas=list(map(_replica, model.replicas)),
        reason=model.reason or UNSET,
    )
    told.parent = model.parent or UNSET
    if encoder is not None:
        told.dimensions = encoder.width if encoder.task == "embedding" else UNSET
        told.labels = encoder.labels or UNSET
        told.prompts = list(encoder.prompts) or UNSET
    if speech is not None:
        told.languages = list(speech.languages) or ["en"]
        told.translates = speech.translate is not None
    if (coming := models.successor(name)) is not None:
        build = schema.fingerprint(coming.digest)
        told.next = Loading(coming.name, build, coming.state, coming.stage, _percent(coming))
    return told


def _percent(model: Model) -> int:
    return 100 if model.state == "ready" else int(100 * model.fraction)


def _replica(engine: EngineState) -> Replica:
    return Replica(engine.state, int(100 * engine.fraction), engine.restarts, engine.reason or UNSET)
