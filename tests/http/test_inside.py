"""Requests from within: answered as over the wire, for whom they are said to be, and after all others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from basert import keys
from basert.errors import EngineFailed
from basert.http import inside
from basert.messages import Submit
from tests.http.fakes import FakeModels, fake_app

CHAT = "/v1/chat/completions"
BODY = {"model": "org/tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


async def ask(app: Any, path: str, body: Any, owner: str = "") -> tuple[inside.Answer, Any]:
    answer = await inside.ask(app, path, json.dumps(body).encode(), owner)
    return answer, json.loads(answer.body)


async def test_answers_need_no_key(models: FakeModels) -> None:
    answer, told = await ask(fake_app(models, api_key=("secret",)), CHAT, BODY)
    assert answer.status == 200
    assert told["object"] == "chat.completion"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"


async def test_the_owners_key_has_to_be_in_force_still(models: FakeModels) -> None:
    app = fake_app(models, api_key=("secret",))
    assert (await ask(app, CHAT, BODY, keys.digest("secret")))[0].status == 200
    answer, told = await ask(app, CHAT, BODY, keys.digest("taken away"))
    assert (answer.status, told["error"]["code"]) == (401, "invalid_api_key")


async def test_what_is_kept_is_the_owners(models: FakeModels, tmp_path: Path) -> None:
    app = fake_app(models, tmp_path / "responses")
    _, first = await ask(app, "/v1/responses", {"model": "org/tiny", "input": "Hi"}, "me")
    next_one = {"model": "org/tiny", "input": "And?", "previous_response_id": first["id"]}
    assert (await ask(app, "/v1/responses", next_one, "me"))[0].status == 200
    assert (await ask(app, "/v1/responses", next_one, "other"))[0].status == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, BODY | {"model": "none"}, 404, "model_not_found"),
        (CHAT, {"model": "org/tiny"}, 400, None),
        ("/v1/nothing", {}, 404, "unknown_url"),
    ],
)
async def test_errors(models: FakeModels, path: str, body: Any, status: int, code: str | None) -> None:
    answer, told = await ask(fake_app(models), path, body)
    assert (answer.status, told["error"]["code"]) == (status, code)


async def test_an_engine_that_dies(models: FakeModels) -> None:
    models.model.engine.error, models.model.engine.error_after = EngineFailed("It died."), 1
    answer, told = await ask(fake_app(models), CHAT, BODY)
    assert (answer.status, told["error"]["code"]) == (500, "engine_failed")


async def test_long_answers_are_whole(models: FakeModels) -> None:
    models.add_encoder("embedder", width=400)
    answer, told = await ask(
        fake_app(models), "/v1/embeddings", {"model": "embedder", "input": ["hello"] * 100}
    )
    assert len(answer.body) > 1 << 17
    assert len(told["data"]) == 100


async def test_engines_are_told_that_it_is_not_urgent(
    models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the tasks that a request starts; and nobody else's requests are."""
    seen = []
    generate = models.model.engine.generate

    def noted(request: Submit) -> Any:
        seen.append(inside.lane.get())
        return generate(request)

    monkeypatch.setattr(models.model.engine, "generate", noted)
    app = fake_app(models)
    await asyncio.gather(*(ask(app, CHAT, BODY | {"n": 2}) for _ in range(2)))
    assert seen == [1] * 4
    assert inside.lane.get() == 0


async def test_who_does_not_wait_any_more_leaves_the_engine(models: FakeModels) -> None:
    engine = models.model.engine
    engine.gate = asyncio.Event()
    asking = asyncio.create_task(ask(fake_app(models), CHAT, BODY))
    while not engine.open:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert engine.open == 0
