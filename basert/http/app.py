"""The HTTP app: everything is made and wired here, and here is the whole route table."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falcon.asgi import App

from basert import keys
from basert.config import AppConfig
from basert.http.auth import Keys
from basert.http.caller import Caller, caller
from basert.http.limiting import Limiter
from basert.http.media import Envelope, install_error_handlers
from basert.http.metrics import Metrics
from basert.http.models import Models
from basert.http.openapi import Document
from basert.http.quotas import Quotas
from basert.resources.adapters import LoadLora, UnloadLora, VllmLoadLora, VllmUnloadLora
from basert.resources.anthropic import CountTokens, Messages
from basert.resources.archive import Archive
from basert.resources.batches import BatchCancel, BatchCollection, BatchItem
from basert.resources.chat import ChatCompletions
from basert.resources.classifying import Classify
from basert.resources.completions import Completions
from basert.resources.embeddings import BareEmbeddings, CohereEmbed, EmbeddingCollection
from basert.resources.files import FileCollection, FileContent, FileItem
from basert.resources.health import Exposition, Live, Ready
from basert.resources.kept import Kept
from basert.resources.listing import ModelCollection, ModelItem
from basert.resources.loading import Load, Swap, Unload
from basert.resources.ranking import Rerank, ScoreCollection
from basert.resources.recordings import Studio
from basert.resources.responses import InputItems, InputTokens, ResponseById, ResponseCancel, Responses
from basert.resources.service import Service
from basert.resources.tokenizing import Detokenize, Tokenize
from basert.resources.transcriptions import Transcriptions, Translations
from basert.supervisor.folder import KEYS, QUOTAS

if TYPE_CHECKING:
    from basert.jobs.office import Office


class BasertApp(App[Any, Any]):
    """Falcon awaits a body's first bytes before it looks at a request; here it begins with its headers, and
    with a caller of its own.

    Else a body that never comes would be waited for without our limits, and 100 Continue be sent for any.
    It holds the models that it has chosen until it ends.
    """

    models: Models
    keys: Keys

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override]
        caller.set(Caller())
        begun = scope["type"] != "http"
        visit = contextlib.nullcontext() if begun else self.models.visit()

        async def receive_later() -> Any:
            nonlocal begun
            if begun:
                return await receive()
            begun = True
            return {"type": "http.request", "body": b"", "more_body": True}

        with visit:
            await super().__call__(scope, receive_later, send)


def create_app(
    config: AppConfig, models: Models, responses: Path | None = None, folder: Path | None = None
) -> BasertApp:
    """The app over a registry of models, which the caller starts and stops. Raises ConfigError.

    responses: where all workers of a server keep them; without it none are kept.
    folder: the server's run folder, with the keys in force and what was used of their limits; without it keys
    are read from the configuration, and limits are this app's own.
    """
    service = Service(models, config, Metrics())
    limiter = Limiter(config, Quotas(None if folder is None else folder / QUOTAS))
    read = config.read_keys if folder is None else partial(keys.load, folder / KEYS)
    known = Keys(config, read, limiter)
    models.on_reload.append(known.reload)
    app = BasertApp(middleware=[Envelope(config), service.metrics, known])
    app.models, app.keys = models, known
    app.req_options.strip_url_path_trailing_slash = True
    install_error_handlers(app)
    kept = Kept(responses, config.responses_ttl, config.responses_max_bytes)
    table = routes(service, Archive(kept), _office(config))
    for path, resource in (table | {"/openapi.json": Document(table)}).items():
        app.add_route(path, resource)
    return app


def _office(config: AppConfig) -> Office | None:
    """Files and batches, whose libraries only a server loads that has them."""
    if config.files_dir is None:
        return None
    from basert.jobs.office import open_office

    return open_office(config, config.files_dir)


def routes(service: Service, archive: Archive, office: Office | None) -> dict[str, Any]:
    studio = Studio(service.config)
    return {
        "/v1/chat/completions": ChatCompletions(service),
        "/v1/completions": Completions(service),
        "/v1/responses": Responses(service, archive),
        "/v1/responses/input_tokens": InputTokens(service, archive),
        "/v1/responses/{response}": ResponseById(archive),
        "/v1/responses/{response}/cancel": ResponseCancel(archive),
        "/v1/responses/{response}/input_items": InputItems(archive),
        "/v1/messages": Messages(service),
        "/v1/messages/count_tokens": CountTokens(service),
        "/v1/embeddings": EmbeddingCollection(service),
        "/v1/rerank": Rerank(service),
        "/v2/rerank": Rerank(service),
        "/rerank": Rerank(service),
        "/v1/score": ScoreCollection(service),
        "/score": ScoreCollection(service),
        "/v1/classify": Classify(service),
        "/classify": Classify(service),
        "/predict": Classify(service),
        "/v1/embed": CohereEmbed(service),
        "/v2/embed": CohereEmbed(service),
        "/embed": BareEmbeddings(service),
        "/v1/audio/transcriptions": Transcriptions(service, studio),
        "/v1/audio/translations": Translations(service, studio),
        "/v1/files": FileCollection(service, office),
        "/v1/files/{file}": FileItem(service, office),
        "/v1/files/{file}/content": FileContent(service, office),
        "/v1/batches": BatchCollection(service, office),
        "/v1/batches/{batch}": BatchItem(service, office),
        "/v1/batches/{batch}/cancel": BatchCancel(service, office),
        "/v1/lora/load": LoadLora(service),
        "/v1/lora/unload": UnloadLora(service),
        "/v1/load_lora_adapter": VllmLoadLora(service),
        "/v1/unload_lora_adapter": VllmUnloadLora(service),
        "/v1/models": ModelCollection(service),
        "/v1/models/load": Load(service),
        "/v1/models/unload": Unload(service),
        "/v1/models/swap": Swap(service),
        "/v1/models/{model:path}": ModelItem(service),
        "/v1/tokenize": Tokenize(service),
        "/tokenize": Tokenize(service),
        "/v1/detokenize": Detokenize(service),
        "/detokenize": Detokenize(service),
        "/health": Live(),
        "/livez": Live(),
        "/readyz": Ready(service),
        "/metrics": Exposition(service),
        "/v1/metrics": Exposition(service),
    }
