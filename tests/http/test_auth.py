"""What a key may do, over an app of its own: who counts as an administrator, whose things are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from falcon.asgi import App, Request, Response
from falcon.testing import ASGIConductor

from basert import keys
from basert.http.auth import require_admin
from tests.http.fakes import FakeModels, fake_app


class Guarded:
    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        resp.media = {"key": req.context.key.name, "owner": req.context.owner}


def guarded(tmp_path: Path, **settings: Any) -> App[Any, Any]:
    app = fake_app(FakeModels(tmp_path), **settings)
    app.add_route("/guarded", Guarded())
    return app


async def asked(client: ASGIConductor, key: str) -> tuple[int, Any]:
    answer = await client.simulate_post("/guarded", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code, answer.json


async def test_on_an_open_server_anybody_may(tmp_path: Path) -> None:
    async with ASGIConductor(guarded(tmp_path)) as client:
        assert await asked(client, "") == (200, {"key": "", "owner": ""})


async def test_an_administrator_is_whoever_is_marked_and_else_whoever_is_not_limited(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("plain\nlimited name=bob models=x\n")
    app = guarded(tmp_path, api_key_file=file)
    async with ASGIConductor(app) as client:
        status, answer = await asked(client, "limited")
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (
            403,
            "permission_error",
            "admin_required",
        )
        assert "The key 'bob' is no administrator's" in answer["error"]["message"]
        assert await asked(client, "plain") == (200, {"key": "unnamed", "owner": keys.digest("plain")})


async def test_once_one_is_marked_the_others_are_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("plain\nops name=ops admin models=x\n")
    async with ASGIConductor(guarded(tmp_path, api_key_file=file, api_key=("given",))) as client:
        statuses = [(await asked(client, key))[0] for key in ("plain", "given", "ops", "none")]
    assert statuses == [403, 403, 200, 401]


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models"])
async def test_keys_go_through_unharmed_by_strange_headers(tmp_path: Path, path: str) -> None:
    async with ASGIConductor(guarded(tmp_path, api_key=("k",))) as client:
        answer = await client.simulate_get(
            path, headers={"Authorization": "Bearer \xff\xfe", "x-api-key": "k"}
        )
    assert answer.status_code == (401 if path.startswith("/v1") else 200)
