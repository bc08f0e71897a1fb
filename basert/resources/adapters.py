"""POST /v1/lora/load and /v1/lora/unload, and vLLM's names for them. Adapters come from the store by name."""

from __future__ import annotations

from pathlib import Path

from falcon.asgi import Request, Response

from basert import store
from basert.adapter import Adapter, check_base, is_adapter, read_adapter
from basert.errors import BundleError, ConfigError, Conflict, InvalidRequest, NotFound
from basert.http import media
from basert.http.auth import require_admin
from basert.http.models import Model
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
        request = await self._service.read(req, AdapterRequest)
        media.send_json(resp, await self.load(request))

    async def load(self, request: Asked) -> AdapterState:
        """Raises NotFound, InvalidRequest, Conflict, Unavailable."""
        models = self._service.models
        request.check()
        bundle = _find(request)
        adapter = _read(bundle)
        model = _base_of(adapter, request, models.all()) if not request.model else models.get(request.model)
        try:
            check_base(adapter, model.manifest)
        except BundleError as error:
            raise InvalidRequest(_sentence(error.message), param="model") from None
        _check_name(adapter.name, models.all())
        if trouble := await models.load_adapter(model.parent or model.name, bundle):
            raise Conflict(_sentence(trouble))
        return AdapterState(adapter.name, model.parent or model.name, loaded=True)


class UnloadLora:
    def __init__(self, service: Service) -> None:
        self._service = service

    @operation("Unload an adapter, when the last request that uses it is over.", AdapterRequest, AdapterState)
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        request = await self._service.read(req, AdapterRequest)
        media.send_json(resp, await self.unload(request))

    async def unload(self, request: Asked) -> AdapterState:
        """Raises ModelNotFound, InvalidRequest, Unavailable."""
        models = self._service.models
        request.check()
        adapted = models.get(f"{request.model}:{request.name}" if request.model else request.name)
        if not adapted.adapter:
            raise InvalidRequest(f"{request.name} is a model, not an adapter.", param="lora")
        if trouble := await models.unload_adapter(adapted.parent, adapted.adapter):
            raise Conflict(_sentence(trouble))
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
        resp.content_type, resp.text = (
            "text/plain",
            f"Success: LoRA adapter '{done.id}' removed successfully.",
        )


def _find(request: Asked) -> Path:
    """The adapter's folder in the store; nothing else is ever opened."""
    try:
        bundle = store.bundle_path(request.name)
    except ConfigError as error:
        raise InvalidRequest(_sentence(error.message), param="lora") from None
    if not is_adapter(bundle):
        raise NotFound(_sentence(store.missing_adapter(request.name)), param="lora", code="lora_not_found")
    return bundle


def _read(bundle: Path) -> Adapter:
    try:
        return read_adapter(bundle)
    except BundleError as error:
        raise Conflict(_sentence(error.message)) from None


def _base_of(adapter: Adapter, request: Asked, models: list[Model]) -> Model:
    """The model that it was exported for; if none is served, the one that it might have been."""
    fitting = [model for model in models if (lora := model.manifest.lora) and lora.base == adapter.base_hash]
    named = [model for model in models if model.manifest.name == adapter.base]
    if found := [*fitting, *named, *(models if len(models) == 1 else [])]:
        return found[0]
    raise InvalidRequest(
        f"The adapter {request.name} was made for {adapter.base}, which is not served here.", param="lora"
    )


def _check_name(name: str, models: list[Model]) -> None:
    if any(name in (model.name, *model.aliases) for model in models):
        raise Conflict(f"A model is served as {name}; export the adapter under another name.")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
