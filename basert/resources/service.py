"""What every resource needs: the models, the settings, the counters, and a way to read a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from falcon.asgi import Request

from basert.config import AppConfig
from basert.http.limits import read_body
from basert.http.metrics import Metrics
from basert.http.models import Models
from basert.schema.parsing import parse

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    models: Models
    config: AppConfig
    metrics: Metrics

    async def read(self, req: Request, kind: type[T]) -> T:
        """A body as the struct it should be. Raises InvalidRequest, PayloadTooLarge, RequestTimeout."""
        return parse(await read_body(req, self.config), kind, max_depth=self.config.max_json_depth)
