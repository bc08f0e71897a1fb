"""The HTTP app: everything is made and wired here, and here is the whole route table."""

from __future__ import annotations

from typing import Any

from falcon.asgi import App

from basert.auth import Keys
from basert.config import AppConfig
from basert.media import Envelope, install_error_handlers
from basert.metrics import Metrics
from basert.models import Models
from basert.openapi import Document
from basert.resources.chat import ChatCompletions
from basert.resources.completions import Completions
from basert.resources.health import Exposition, Live, Ready
from basert.resources.listing import ModelCollection, ModelItem
from basert.resources.tokenizing import Detokenize, Tokenize


def create_app(config: AppConfig, models: Models) -> App[Any, Any]:
    """The app over a registry of models, which the caller starts and stops. Raises ConfigError."""
    metrics = Metrics()
    keys = Keys(config)
    models.on_reload.append(keys.reload)
    app: App[Any, Any] = App(middleware=[Envelope(config), metrics, keys])
    install_error_handlers(app)
    table = routes(config, models, metrics)
    for path, resource in (table | {"/openapi.json": Document(table)}).items():
        app.add_route(path, resource)
    return app


def routes(config: AppConfig, models: Models, metrics: Metrics) -> dict[str, Any]:
    tokenize, detokenize = Tokenize(models, config), Detokenize(models, config)
    figures = Exposition(models, metrics)
    return {
        "/v1/chat/completions": ChatCompletions(models, config, metrics),
        "/v1/completions": Completions(models, config, metrics),
        "/v1/models": ModelCollection(models),
        "/v1/models/{model:path}": ModelItem(models),
        "/v1/tokenize": tokenize,
        "/tokenize": tokenize,
        "/v1/detokenize": detokenize,
        "/detokenize": detokenize,
        "/health": Live(),
        "/livez": Live(),
        "/readyz": Ready(models),
        "/metrics": figures,
        "/v1/metrics": figures,
    }
