"""What an HTTP worker knows of the models it serves, kept true by the supervisor over its control socket.

Knows no HTTP. The supervisor never closes that connection while it lives: when it ends, and no new one can be
made, the supervisor is gone and this worker has to go as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from basert import manifest, text
from basert.errors import InvalidRequest, ModelNotFound, Unavailable
from basert.http.engine_client import EngineClient
from basert.messages import (
    AdapterDone,
    AdapterInfo,
    EngineInfo,
    LoadAdapter,
    ModelState,
    Reload,
    UnloadAdapter,
    Watch,
    WorkerReport,
)
from basert.messages import Models as ModelsMessage
from basert.transport import Connection


class Model:
    """One served model: its bundle, and its engine as of now."""

    adapter = ""  # the one that answers in its place, and
    parent = ""  # the name that the model has without it

    def __init__(self, state: ModelState) -> None:
        self._state = state
        self.bundle = Path(state.bundle)
        self.manifest = manifest.read_manifest(self.bundle)
        self.digest = manifest.digest(self.bundle)
        self.created = self.manifest.provenance.created  # Unix seconds
        self.engine = EngineClient(state)

    def update(self, state: ModelState) -> None:
        self._state = state
        self.engine.update(state)

    @property
    def name(self) -> str:
        return self.adapter or self._state.name

    @property
    def aliases(self) -> list[str]:
        return self._state.aliases

    @property
    def adapters(self) -> list[AdapterInfo]:
        return self._state.adapters

    def adapted(self, info: AdapterInfo) -> Model:
        """This model with one of its adapters, which has the adapter's name; for one request."""
        other = copy.copy(self)
        other.adapter, other.parent = info.name, self.name
        other.digest, other.created = info.digest, info.created
        return other

    @property
    def state(self) -> str:
        """ "loading" | "ready" | "restarting" | "failed" """
        return self._state.state

    @property
    def reason(self) -> str:
        """Why it failed or is being restarted: one sentence, or nothing."""
        return self._state.reason

    @property
    def fraction(self) -> float:
        """How far loading has come, 0 to 1."""
        return self._state.fraction

    @property
    def restarts(self) -> int:
        return self._state.restarts

    @property
    def info(self) -> EngineInfo | None:
        return self._state.info

    @cached_property
    def text(self) -> text.TextModel:
        """Tokenizer and template; loaded when first wanted."""
        return text.load(self.bundle)

    def prepare(self) -> None:
        """Load what its first request would wait for. Raises BundleError."""
        assert self.text
        if self.manifest.encoder is not None:
            importlib.import_module("basert.vectors")
        if self.manifest.speech is not None:
            for module in ("alignment", "features", "voice", "words"):
                importlib.import_module(f"basert.audio.{module}")


class Models:
    """The registry of one HTTP worker.

    `on_reload` is called when the API keys are to be read again; `on_orphaned` when the supervisor is gone.
    """

    def __init__(self, control: Path, *, on_orphaned: Callable[[], None]) -> None:
        self.draining = False
        self.drain_seconds = 0.0
        self.on_reload: list[Callable[[], None]] = []
        self._control = control
        self._on_orphaned = on_orphaned
        self._models: dict[str, Model] = {}
        self._open_requests = 0
        self._asked: dict[int, asyncio.Future[AdapterDone]] = {}
        self._next = 1
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Return when the models are known and their tokenizers loaded. Raises OSError, BundleError."""
        self._connection = await self._watch()
        for message in await self._connection.receive():
            self._apply(message)
        for model in self.all():
            await asyncio.to_thread(model.prepare)
        self._report()
        self._task = asyncio.create_task(self._follow(), name="models")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for model in self.all():
            model.engine.close()
        if self._connection is not None:
            self._connection.close()

    def get(self, name: str | None) -> Model:
        """By name or alias; a model with an adapter by the adapter's name, or as MODEL:ADAPTER.

        Raises ModelNotFound, InvalidRequest when no name is given.
        """
        if not name:
            raise InvalidRequest("you must provide a model parameter", param="model")
        for model in self._models.values():
            if name == model.name or name in model.aliases:
                return model
        for model in self._models.values():
            for info in model.adapters:
                if name in (info.name, *(f"{one}:{info.name}" for one in (model.name, *model.aliases))):
                    return model.adapted(info)
        served = ", ".join(self._names()) or "none"
        raise ModelNotFound(
            f"The model {name!r} is not served here; this server has {served}.", param="model"
        )

    def _names(self) -> list[str]:
        return [*self._models, *(info.name for model in self._models.values() for info in model.adapters)]

    def all(self) -> list[Model]:
        return list(self._models.values())

    async def load_adapter(self, model: str, bundle: Path) -> str:
        """Why it could not be loaded; "" when it can be used. Raises Unavailable."""
        return await self._adapt(LoadAdapter(self._number(), str(bundle), model))

    async def unload_adapter(self, model: str, name: str) -> str:
        """Returns when the last request that used it is over: why it was not unloaded, or "". Raises
        Unavailable."""
        return await self._adapt(UnloadAdapter(self._number(), name, model))

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    async def _adapt(self, message: LoadAdapter | UnloadAdapter) -> str:
        if self._connection is None or self.draining:
            raise _shutting_down()
        answer = self._asked[message.id] = asyncio.get_running_loop().create_future()
        self._connection.send(message)
        try:
            done: AdapterDone = await answer
            return done.error
        finally:
            del self._asked[message.id]

    @contextlib.contextmanager
    def open_request(self) -> Iterator[None]:
        """Around each request that generates: what a drain waits for. Raises Unavailable during one."""
        if self.draining:
            raise _shutting_down()
        self._open_requests += 1
        try:
            yield
        finally:
            self._close_request()

    def _close_request(self) -> None:
        self._open_requests -= 1
        if self.draining:
            self._report()

    async def _watch(self) -> Connection:
        connection = await Connection.open(self._control)
        connection.send(Watch(os.getpid()))
        return connection

    async def _follow(self) -> None:
        assert self._connection is not None
        while True:
            while messages := await self._connection.receive():
                for message in messages:
                    self._apply(message)
            self._connection.close()
            for answer in self._asked.values():
                answer.set_exception(_shutting_down())
            try:
                self._connection = await self._watch()
            except OSError:
                break
            self._report()
        self._drain(0.0)
        self._on_orphaned()

    def _apply(self, message: object) -> None:
        if isinstance(message, ModelsMessage):
            for state in message.models:
                if state.name in self._models:
                    self._models[state.name].update(state)
                else:
                    self._models[state.name] = Model(state)
            if message.draining:
                self._drain(message.drain_seconds)
        elif isinstance(message, AdapterDone):
            if message.id in self._asked:  # else whoever asked has left
                self._asked[message.id].set_result(message)
        elif isinstance(message, Reload):
            for callback in self.on_reload:
                callback()

    def end_within(self, seconds: float) -> None:
        """What is open then is ended. A second call can only bring that nearer."""
        loop = asyncio.get_running_loop()
        if self._expiry is not None:
            if self._expiry.when() <= loop.time() + seconds:
                return
            self._expiry.cancel()
        self._expiry = loop.call_later(seconds, self._expire)

    def _drain(self, seconds: float) -> None:
        """Refuse what comes, end what is open within `seconds`."""
        self.draining, self.drain_seconds = True, seconds
        self.end_within(seconds)
        self._report()

    def _expire(self) -> None:
        for model in self.all():
            model.engine.end(_shutting_down())

    def _report(self) -> None:
        if self._connection is not None:
            self._connection.send(WorkerReport(self._open_requests))


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down; try again.", code="shutting_down", retry_after=5.0)
