"""What clients order of the server's models, and what they are told about them."""

from __future__ import annotations

import pytest
from falcon.testing import ASGIConductor

from basert.errors import BasertError, Conflict, EngineFailed, ModelNotFound
from basert.messages import EngineState, LoadModel, SwapModel, UnloadModel
from tests.http.fakes import FakeModels


async def test_orders_name_what_was_asked_for(client: ASGIConductor, models: FakeModels) -> None:
    loaded = await client.simulate_post("/v1/models/load", json={"model": "alias"})
    assert (loaded.status_code, loaded.json["id"], loaded.json["status"]) == (200, "alias", "ready")
    swapped = await client.simulate_post("/v1/models/swap", json={"alias": "alias", "model": "new"})
    assert (swapped.status_code, swapped.json["id"]) == (200, "alias")
    deleted = {"id": "org/tiny", "object": "model", "deleted": True}
    unloaded = await client.simulate_post("/v1/models/unload", json={"model": "org/tiny"})
    assert (unloaded.status_code, unloaded.json) == (200, deleted)
    assert (await client.simulate_delete("/v1/models/org/tiny")).json == deleted
    assert models.orders.given == [
        LoadModel(1, "alias"),
        SwapModel(1, "alias", "new"),
        UnloadModel(1, "org/tiny"),
        UnloadModel(1, "org/tiny"),
    ]


@pytest.mark.parametrize(
    "error", [ModelNotFound("none"), Conflict("full", code="no_room"), EngineFailed("no", code="load_failed")]
)
async def test_what_becomes_of_an_order_is_answered(
    client: ASGIConductor, models: FakeModels, error: BasertError
) -> None:
    models.orders.error = error
    for path in ("load", "unload", "swap"):
        answer = await client.simulate_post(f"/v1/models/{path}", json={"model": "x", "alias": "y"})
        assert (answer.status_code, answer.json) == (error.status, error.wire())
    assert (await client.simulate_delete("/v1/models/x")).status_code == error.status


@pytest.mark.parametrize("path", ["load", "unload", "swap"])
async def test_what_is_no_order(client: ASGIConductor, models: FakeModels, path: str) -> None:
    for body in ({}, {"model": ""}, {"model": 3}, {"model": ["a"]}):
        refused = await client.simulate_post(f"/v1/models/{path}", json=body)
        assert refused.status_code == 400
        assert refused.json["error"]["param"] in ("model", "alias")
    assert models.orders.given == []
    assert (await client.simulate_get(f"/v1/models/{path}")).status_code == 405


async def test_a_card_tells_of_every_engine(client: ASGIConductor, models: FakeModels) -> None:
    model = models.model
    model.state, model.stage, model.fraction, model.reason = "loading", "checking", 0.5, "it died"
    model.replicas = [
        EngineState(1, "ready", fraction=1.0),
        EngineState(2, "restarting", reason="it died", restarts=3),
    ]
    card = (await client.simulate_get("/v1/models/org/tiny")).json
    assert (card["status"], card["stage"], card["percent"], card["reason"]) == (
        "loading",
        "checking",
        50,
        "it died",
    )
    assert card["replicas"] == [
        {"status": "ready", "percent": 100, "restarts": 0},
        {"status": "restarting", "percent": 0, "restarts": 3, "reason": "it died"},
    ]


async def test_sleepers_do_not_make_a_server_unready(client: ASGIConductor, models: FakeModels) -> None:
    models.model.state, models.model.needed, models.model.replicas = "asleep", False, []
    ready = await client.simulate_get("/readyz")
    assert (ready.status_code, ready.json["models"][0]["state"]) == (200, "asleep")
    figures = (await client.simulate_get("/metrics")).text
    assert 'basert_engine_up{model="org/tiny"} 0.0' in figures
    assert "basert_replica_up{" not in figures
