"""POST /v1/lora/load and /v1/lora/unload, and vLLM's names for them. Adapters come from the store by name."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert import messages
from basert.errors import InvalidRequest
from basert.http import media
from basert.http.auth import require_admin
from basert.http.openapi import operation
from basert.resources.service import Service
from basert.schema.adapters import AdapterRequest, AdapterState, VllmAdapterRequest

Asked = AdapterRequest | VllmAdapterRequest


class LoadLora:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Load an adapter of the store beside a model.", AdapterRequest, AdapterState)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        media.send_json(resp, await self.load(await self._service.read(req, AdapterRequest)))

    async def load(self, request: Asked) -> AdapterState:
        """Raises InvalidRequest, ModelNotFound, Conflict, Unavailable."""
        models = self._service.models
        request.check()
        await models.orders.give(lambda number: messages.LoadLora(number, request.name, request.model or ""))
        return AdapterState(request.name, models.find(request.name).parent, loaded=True)


class UnloadLora:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Unload an adapter, when the last request that uses it is over.", AdapterRequest, AdapterState)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        media.send_json(resp, await self.unload(await self._service.read(req, AdapterRequest)))

    async def unload(self, request: Asked) -> AdapterState:
        """Raises InvalidRequest, ModelNotFound, Unavailable."""
        models = self._service.models
        request.check()
        adapted = models.find(f"{request.model}:{request.name}" if request.model else request.name)
        if not adapted.adapter:
            raise InvalidRequest(f"{request.name} is a model, not an adapter.", param="lora")
        await models.orders.give(lambda number: messages.UnloadLora(number, adapted.adapter))
        return AdapterState(adapted.adapter, adapted.parent, loaded=False)


class VllmLoadLora(LoadLora):
    """Answers with a line of text, as vLLM does."""

    @operation("The same as vLLM names it.", VllmAdapterRequest, None)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        done = await self.load(await self._service.read(req, VllmAdapterRequest))
        resp.content_type, resp.text = "text/plain", f"Success: LoRA adapter '{done.id}' added successfully."


class VllmUnloadLora(UnloadLora):
    """Answers with a line of text, as vLLM does."""

    @operation("The same as vLLM names it.", VllmAdapterRequest, None)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        done = await self.unload(await self._service.read(req, VllmAdapterRequest))
        resp.content_type = "text/plain"
        resp.text = f"Success: LoRA adapter '{done.id}' removed successfully."
