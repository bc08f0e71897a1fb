"""POST /v1/models/load, /v1/models/unload and /v1/models/swap: what is served, changed while it is.

An answer comes when it is done; GET /v1/models/{id} tells how far it is. Models are named, never by a path.
"""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.http import media
from basert.http.auth import require_admin
from basert.http.openapi import operation
from basert.messages import LoadModel, SwapModel, UnloadModel
from basert.resources.listing import card
from basert.resources.service import Service
from basert.schema.others import ModelCard, ModelDeleted, ModelRequest, SwapRequest


class Load:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Load a model of the server's store.", ModelRequest, ModelCard)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        models, name = self._service.models, (await self._service.read(req, ModelRequest)).model
        await models.orders.give(lambda number: LoadModel(number, name))
        media.send_json(resp, card(models.find(name), name, models))


class Unload:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Unload a model; what has begun may end.", ModelRequest, ModelDeleted)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        name = (await self._service.read(req, ModelRequest)).model
        await self._service.models.orders.give(lambda number: UnloadModel(number, name))
        media.send_json(resp, ModelDeleted(name))


class Swap:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Let a name mean another model, or a new build.", SwapRequest, ModelCard)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        models, wanted = self._service.models, await self._service.read(req, SwapRequest)
        await models.orders.give(lambda number: SwapModel(number, wanted.alias, wanted.model))
        media.send_json(resp, card(models.find(wanted.alias), wanted.alias, models))
