"""Asks /v1/responses over fake models, and reads streams of typed events."""

from __future__ import annotations

import json
from typing import Any

from falcon.testing import ASGIConductor

from tests.http.fakes import FakeModels

BODY = {"model": "org/tiny", "input": "Hi", "temperature": 0}
Json = dict[str, Any]


def typed_events(body: str) -> list[Json]:
    """The events of a whole stream; each is named by its type."""
    *events, rest = body.split("\n\n")
    assert rest == ""
    told = []
    for event in events:
        name, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    return told


async def plain(client: ASGIConductor, **fields: Any) -> Json:
    result = await client.simulate_post("/v1/responses", json=BODY | fields)
    assert result.status_code == 200, result.text
    return result.json


async def streamed(client: ASGIConductor, **fields: Any) -> list[Json]:
    result = await client.simulate_post("/v1/responses", json=BODY | {"stream": True} | fields)
    assert result.headers["content-type"].startswith("text/event-stream")
    told = typed_events(result.text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


async def refused(client: ASGIConductor, **fields: Any) -> Json:
    result = await client.simulate_post("/v1/responses", json=BODY | fields)
    assert result.status_code == 400, result.text
    return result.json["error"]


def prompt(models: FakeModels) -> str:
    return models.model.text.decode(models.model.engine.submitted[-1][0], skip_special=False)
