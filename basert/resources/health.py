"""Health for load balancers and service managers, and figures for Prometheus. None of these needs a key."""

from __future__ import annotations

from falcon.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from basert.http import media
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.service import Service
from basert.schema.others import Alive, ModelReadiness, Readiness, ReplicaReadiness


class Live:
    """This worker answers; nothing is said of the models."""

    @operation("Whether the server is alive.", None, Alive)
    async def on_get(self, _req: Request, resp: Response) -> None:
        media.send_json(resp, Alive())

    on_head = on_get


class Ready:
    """200 when no drain has begun and every model can answer, or sleeps until it is wanted; else 503."""

    def __init__(self, service: Service) -> None:
        self._models = service.models

    @operation("Whether every model can answer; 503 if not.", None, Readiness)
    async def on_get(self, _req: Request, resp: Response) -> None:
        readiness = self._readiness()
        if readiness.status != "ready":
            resp.status = 503
            resp.set_header("Retry-After", "1")
        media.send_json(resp, readiness)

    on_head = on_get

    def _readiness(self) -> Readiness:
        models = [_model(model) for model in self._models.all()]
        waiting = [model for model in models if model.state != "ready" and model.needed]
        if self._models.draining:
            return Readiness("draining", "The server is shutting down.", models)
        if waiting:
            reasons = [f"{one.name} is {one.state}{': ' * bool(one.reason)}{one.reason}" for one in waiting]
            return Readiness("not ready", "; ".join(reasons), models)
        return Readiness("ready", "", models)


def _model(model: Model) -> ModelReadiness:
    loaded = 1.0 if model.state == "ready" else model.fraction
    replicas = [ReplicaReadiness(one.state, one.reason, one.restarts) for one in model.replicas]
    return ModelReadiness(
        model.name, model.state, model.reason, loaded, model.restarts, model.needed, replicas
    )


class Exposition:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Figures in Prometheus' text format.", None, None)
    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = await self._service.metrics.exposition(self._service.models.all())
