"""What every resource needs: the models, the settings, the counters, and a way to read a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from falcon.asgi import Request

from basert.config import AppConfig
from basert.errors import RequestTimeout
from basert.http import media
from basert.http.caller import caller
from basert.http.limits import read_body
from basert.http.metrics import Meter, Metrics
from basert.http.models import Model, Models
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

    @contextmanager
    def engaged(self, model: Model, tokens: int, started: float, expected: int = 0) -> Iterator[None]:
        """Around a request's time with an engine: a drain waits for it, and it is counted by how it ends.

        tokens: of its prompts; expected: to be generated; started: its arrival, by time.perf_counter.
        Raises TokensExceeded when whoever sent it has used up its limit; any error becomes a BasertError.
        """
        outcome, meter = "cancelled", self.meter(model)
        meter.begin(tokens)
        try:
            with caller.get().reserved(tokens, expected), self.models.open_request():
                yield
            outcome = "ok"
        except Exception as error:
            told = media.as_basert_error(error)
            outcome = told.code or told.type
            raise told from None
        finally:
            meter.end(outcome, started)

    def meter(self, model: Model) -> Meter:
        """The counters of a model's requests with the key of the request at hand."""
        return self.metrics.meter(model.name, caller.get().key.name)

    def seconds_left(self, started: float) -> float | None:
        """Until a request that arrived then has taken too long; None: it may take for ever."""
        seconds = self.config.request_timeout
        return max(seconds - (time.perf_counter() - started), 0.001) if seconds else None

    def took_too_long(self) -> RequestTimeout:
        return RequestTimeout(f"The request was not done within {self.config.request_timeout:g} seconds.")
