"""What a worker's registry tells the supervisor about its requests, and how it asks it for something."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from basert.errors import Conflict, ModelNotFound, Unavailable
from basert.http.models import Models
from basert.messages import (
    AnyMessage,
    EngineState,
    LoadModel,
    ModelState,
    Outcome,
    Prepared,
    Usage,
    UsageRequest,
    WakeModel,
)
from basert.messages import Models as ModelsMessage
from tests.processes.test_models import Supervisor, models, orphaned, state, supervisor

__all__ = ["models", "orphaned", "state", "supervisor"]


async def _usage(supervisor: Supervisor, serial: int) -> Usage:
    supervisor.say(UsageRequest(serial))
    told = await supervisor.heard.get()
    assert isinstance(told, Usage)
    return told


async def test_requests_hold_what_they_chose_until_they_end(models: Models, supervisor: Supervisor) -> None:
    with models.visit():
        models.find("tiny")  # somebody looks
        assert await _usage(supervisor, 1) == Usage(1)
        assert models.get("tiny") is models.get("other")
        with models.visit():
            models.get("tiny")
            told = await _usage(supervisor, 2)
            assert told.open == {1: 2}
        begun = told.used[1]
        assert (await _usage(supervisor, 3)).open == {1: 1}
    told = await _usage(supervisor, 4)
    assert told.open == {}
    assert told.used[1] > begun


async def test_a_build_without_a_name_is_let_go_of_aloud(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    with models.visit():
        held = models.get("tiny")
        supervisor.send(ModelsMessage([msgspec.structs.replace(state, state="unloading", names=[])]))
        assert (await _usage(supervisor, 7)).open == {1: 1}
        with pytest.raises(ModelNotFound, match="not served here; this server has none"):
            models.get("tiny")
        assert models.all() == []
    told = await supervisor.heard.get()
    assert isinstance(told, Usage)
    assert (told.serial, told.open) == (7, {})
    assert held.state == "unloading"


async def test_what_is_gone_ends_its_requests(models: Models, supervisor: Supervisor) -> None:
    model = models.get("tiny")
    supervisor.send(ModelsMessage([]))
    await _usage(supervisor, 1)
    with pytest.raises(Unavailable, match="was unloaded; try again"):
        await model.engine.stats()


async def test_a_new_build_is_prepared_before_names_move(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    new = msgspec.structs.replace(
        state, id=2, names=[], awaited_by=["tiny"], state="ready", replicas=[EngineState(2)]
    )
    supervisor.send(ModelsMessage([state, new]))
    assert await supervisor.heard.get() == Prepared(2)
    assert models.get("tiny").build == 1
    coming = models.successor("tiny")
    assert coming is not None
    assert (coming.build, coming.state) == (2, "ready")
    moved = [
        msgspec.structs.replace(state, names=[]),
        msgspec.structs.replace(new, names=["tiny"], awaited_by=[]),
    ]
    supervisor.send(ModelsMessage(moved))
    await _usage(supervisor, 1)
    assert models.get("tiny").build == 2
    assert models.successor("tiny") is None


async def test_one_that_cannot_be_prepared_says_why(
    models: Models, supervisor: Supervisor, state: ModelState, tmp_path: object
) -> None:
    (models.get("tiny").bundle / "tokenizer.json").write_text("{")
    new = msgspec.structs.replace(state, id=2, names=["new"], state="ready")
    supervisor.send(ModelsMessage([state, new]))
    told = await supervisor.heard.get()
    assert isinstance(told, Prepared)
    assert "tokenizer.json cannot be read" in told.reason
    assert models.find("new").state == "failed"
    with pytest.raises(Unavailable, match=r"Model tiny cannot be served: .*cannot be read"):
        models.get("new")


async def test_orders_wait_for_their_outcome(models: Models, supervisor: Supervisor) -> None:
    orders = [
        asyncio.create_task(models.orders.give(lambda number, name=name: LoadModel(number, name)))
        for name in ("one", "two")
    ]
    given = [await supervisor.heard.get() for _ in orders]
    assert given == [LoadModel(1, "one"), LoadModel(2, "two")]
    supervisor.say(Outcome(2), Outcome(1, 409, "full", "no_room", "model"))
    await orders[1]
    with pytest.raises(Conflict) as refused:
        await orders[0]
    assert (str(refused.value), refused.value.code, refused.value.param) == ("full", "no_room", "model")


async def test_orders_end_with_the_supervisor_or_a_drain(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    order = asyncio.create_task(models.orders.give(lambda number: LoadModel(number, "one")))
    await supervisor.heard.get()
    supervisor.send(ModelsMessage([state], True, 60.0))
    with pytest.raises(Unavailable, match="shutting down"):
        await order


async def test_a_sleeper_is_woken_by_who_wants_it(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    asleep = msgspec.structs.replace(state, state="asleep", replicas=[])
    supervisor.send(ModelsMessage([asleep]))
    await _usage(supervisor, 1)
    waiting = asyncio.create_task(_first(models))
    asked: AnyMessage = await supervisor.heard.get()
    assert asked == WakeModel(1, 1)
    supervisor.say(Outcome(1, 503, "no memory", "model_failed", "", 2.0))
    with pytest.raises(Unavailable, match="no memory"):
        await waiting


async def _first(models: Models) -> object:
    from basert.messages import Submit

    return await anext(models.get("tiny").engine.generate(Submit(0, [1], 1)))
