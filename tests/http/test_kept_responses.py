"""What is kept of /v1/responses: gone on with, referred to, had again, forgotten, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import ASGIConductor

from tests.http.asking import BODY, plain, prompt, refused, streamed
from tests.http.fakes import FakeModels, fake_app
from tests.tiny import SENTENCE


@pytest.fixture
async def client(models: FakeModels, tmp_path: Path) -> AsyncIterator[ASGIConductor]:
    async with ASGIConductor(fake_app(models, tmp_path / "responses")) as conductor:
        yield conductor


async def test_a_response_goes_on_with_an_earlier_one(client: ASGIConductor, models: FakeModels) -> None:
    first = await plain(client, instructions="Be brief.")
    second = (await streamed(client, input="And?", previous_response_id=first["id"]))[-1]["response"]
    assert second["previous_response_id"] == first["id"]
    said = f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{SENTENCE}<|im_end|>\n"
    asked = "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(models) == said + asked  # instructions hold for one response
    await plain(client, input="So?", previous_response_id=second["id"])
    assert prompt(models).startswith(said + asked + SENTENCE)
    listed = (await client.simulate_get(f"/v1/responses/{second['id']}/input_items")).json
    assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]
    assert [item["content"][0]["text"] for item in listed["data"]] == ["And?", SENTENCE, "Hi"]
    assert listed["data"][1] == first["output"][0]
    assert (listed["has_more"], listed["first_id"]) == (False, listed["data"][0]["id"])


async def test_items_can_be_referred_to(client: ASGIConductor, models: FakeModels) -> None:
    (message,) = (await plain(client))["output"]
    asked = [{"role": "user", "content": "Hi"}, {"id": message["id"]}, {"role": "user", "content": "And?"}]
    await plain(client, input=asked)
    asked[1] = message
    await plain(client, input=asked)
    _, referred, sent = (ids for ids, _ in models.model.engine.submitted)
    assert referred == sent
    for unknown in (message["id"][:-1] + "1", "msg_1", "../" + message["id"]):
        fields = {"input": [{"type": "item_reference", "id": unknown}]}
        result = await client.simulate_post("/v1/responses", json=BODY | fields)
        assert (result.status_code, result.json["error"]["param"]) == (404, "input")


async def test_input_items_come_in_pages(client: ASGIConductor) -> None:
    items = [{"role": "user", "content": str(number)} for number in range(5)]
    path = f"/v1/responses/{(await plain(client, input=items))['id']}/input_items"

    async def page(**params: Any) -> tuple[list[str], bool, str]:
        listed = (await client.simulate_get(path, params=params)).json
        return [item["content"][0]["text"] for item in listed["data"]], listed["has_more"], listed["last_id"]

    texts, more, last = await page(limit=2, order="asc")
    assert (texts, more) == (["0", "1"], True)
    assert (await page(limit=3, order="asc", after=last))[:2] == (["2", "3", "4"], False)
    assert (await page(limit=2))[0] == ["4", "3"]
    for params in ({"limit": 0}, {"order": "up"}, {"after": "msg_x"}):
        assert (await client.simulate_get(path, params=params)).status_code == 400


async def test_a_kept_response_can_be_had_again_and_forgotten(client: ASGIConductor) -> None:
    response = await plain(client)
    path = f"/v1/responses/{response['id']}"
    assert (await client.simulate_get(path)).json == response
    assert (await client.simulate_get(path, params={"stream": "true"})).status_code == 400
    cancelled = await client.simulate_post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json["error"]["message"]) == (
        400,
        "Cannot cancel a synchronous response.",
    )
    deleted = await client.simulate_delete(path)
    assert deleted.json == {"id": response["id"], "object": "response", "deleted": True}
    for method, where in [("GET", path), ("DELETE", path), ("POST", f"{path}/cancel")]:
        gone = await client.simulate_request(method, where)
        assert gone.status_code == 404
        assert response["id"] in gone.json["error"]["message"]


@pytest.mark.parametrize("store", [False, True])
async def test_what_is_not_kept_is_not_found(models: FakeModels, tmp_path: Path, store: bool) -> None:
    folder, ttl = tmp_path / "responses", 0.0 if store else 3600.0
    async with ASGIConductor(fake_app(models, folder, responses_ttl=ttl)) as client:
        response = await plain(client, store=store)
        assert response["store"] is False
        assert (await client.simulate_get(f"/v1/responses/{response['id']}")).status_code == 404
        error = await refused(client, previous_response_id=response["id"])
        assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


async def test_a_key_does_not_find_what_another_one_left(models: FakeModels, tmp_path: Path) -> None:
    app = fake_app(models, tmp_path / "responses", api_key=("one", "two"))
    async with ASGIConductor(app) as client:
        mine, theirs = {"Authorization": "Bearer one"}, {"x-api-key": "two"}
        response = (await client.simulate_post("/v1/responses", json=BODY, headers=mine)).json
        path = f"/v1/responses/{response['id']}"
        assert (await client.simulate_get(path, headers=mine)).status_code == 200
        assert (await client.simulate_get(path, headers=theirs)).status_code == 404
        assert (await client.simulate_delete(path, headers=theirs)).status_code == 404
        body = BODY | {"previous_response_id": response["id"]}
        assert (await client.simulate_post("/v1/responses", json=body, headers=theirs)).status_code == 400
        assert (await client.simulate_post("/v1/responses", json=body, headers=mine)).status_code == 200
