"""A worker's registry, told what to know by a supervisor played in this process over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from basert import transport
from basert.errors import InvalidRequest, ModelNotFound, Unavailable
from basert.http.models import Models
from basert.manifest import digest
from basert.messages import (
    AnyMessage,
    EngineState,
    Message,
    ModelState,
    Prepared,
    Reload,
    Usage,
    Watch,
    WorkerReport,
)
from basert.messages import Models as ModelsMessage
from basert.transport import Connection
from tests.tiny import write_testing_bundle


class Supervisor:
    def __init__(self, path: Path, greeting: ModelsMessage) -> None:
        self.path = path
        self.greeting = greeting
        self.heard: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self.connection: Connection | None = None

    async def start(self) -> None:
        self._server = await transport.serve(self.path, self._serve)

    def close(self) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)

    def send(self, *messages: ModelsMessage | Reload) -> None:
        self.say(*messages)

    def say(self, *messages: Message) -> None:
        assert self.connection is not None
        self.connection.send(*messages)

    async def _serve(self, connection: Connection) -> None:
        self.connection = connection
        connection.send(self.greeting)
        while messages := await connection.receive():
            for message in messages:
                self.heard.put_nowait(message)


@pytest.fixture
def state(tmp_path: Path) -> ModelState:
    bundle = write_testing_bundle(tmp_path)
    return ModelState(1, "tiny", str(bundle), digest(bundle), "loading", [EngineState(1)], ["tiny", "other"])


@pytest.fixture
async def supervisor(tmp_path: Path, state: ModelState) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "control.sock", ModelsMessage([state]))
    await supervisor.start()
    yield supervisor
    supervisor.close()


@pytest.fixture
def orphaned() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def models(supervisor: Supervisor, orphaned: asyncio.Event) -> AsyncIterator[Models]:
    models = Models(supervisor.path, on_orphaned=orphaned.set)
    await models.start()
    assert isinstance(await supervisor.heard.get(), Watch)
    assert await supervisor.heard.get() == Prepared(1)
    assert await supervisor.heard.get() == WorkerReport(0)
    yield models
    await models.stop()


async def test_a_model_is_known_by_name_and_alias(models: Models, state: ModelState) -> None:
    model = models.get("tiny")
    assert models.get("other") is model
    assert models.all() == [model]
    assert (model.name, model.state, model.info) == ("tiny", "loading", None)
    assert model.digest == digest(Path(state.bundle))
    assert model.text.decode(model.text.encode("hello")) == "hello"


async def test_a_model_that_is_not_served(models: Models) -> None:
    with pytest.raises(ModelNotFound, match="'huge' is not served here; this server has tiny") as caught:
        models.get("huge")
    assert caught.value.param == "model"
    for nothing in (None, ""):
        with pytest.raises(InvalidRequest) as refused:
            models.get(nothing)
        assert refused.value.param == "model"


async def test_it_follows_the_supervisor(models: Models, supervisor: Supervisor, state: ModelState) -> None:
    model, seen = models.get("tiny"), asyncio.Event()
    models.on_reload.append(seen.set)  # comes after what was sent before it
    engine = EngineState(1, "failed", reason="no memory", restarts=4)
    failed = msgspec.structs.replace(state, state="failed", replicas=[engine], reason="no memory")
    supervisor.send(ModelsMessage([failed]), Reload())
    await seen.wait()
    assert models.get("tiny") is model
    assert (model.state, model.reason, model.restarts) == ("failed", "no memory", 4)
    with pytest.raises(Unavailable, match="no memory"):
        await model.engine.stats()


async def test_draining_counts_what_is_open_and_refuses_what_comes(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    with models.open_request(), models.open_request():
        supervisor.send(ModelsMessage([state], True, 60.0))
        assert await supervisor.heard.get() == WorkerReport(2)
        assert models.draining
        with pytest.raises(Unavailable, match="shutting down") as caught, models.open_request():
            pass
        assert caught.value.retry_after
    assert [await supervisor.heard.get() for _ in range(2)] == [WorkerReport(1), WorkerReport(0)]


async def test_at_the_drains_deadline_open_requests_fail(
    models: Models, supervisor: Supervisor, state: ModelState
) -> None:
    with models.open_request():
        supervisor.send(ModelsMessage([state], True, 60.0))
        await supervisor.heard.get()
        supervisor.send(ModelsMessage([state], True, 0.0))  # a second signal: hurry
        await supervisor.heard.get()
        messages = [await _refusal(models)]
        while "shutting down" not in messages[-1]:  # until the deadline's timer has run
            messages.append(await _refusal(models))
        assert set(messages[:-1]) <= {"Model tiny is loading; try again."}


async def _refusal(models: Models) -> str:
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await models.get("tiny").engine.stats()
    return str(caught.value)


async def test_a_lost_connection_is_made_again(
    models: Models, supervisor: Supervisor, orphaned: asyncio.Event
) -> None:
    assert supervisor.connection is not None
    supervisor.connection.close()
    assert isinstance(await supervisor.heard.get(), Watch)
    assert await supervisor.heard.get() == Prepared(1)
    assert await supervisor.heard.get() == Usage(0)
    assert await supervisor.heard.get() == WorkerReport(0)
    assert not orphaned.is_set()
    assert not models.draining


async def test_without_a_supervisor_it_drains_at_once_and_says_so(
    models: Models, supervisor: Supervisor, orphaned: asyncio.Event
) -> None:
    supervisor.close()
    assert supervisor.connection is not None
    supervisor.connection.close()
    await orphaned.wait()
    assert models.draining
