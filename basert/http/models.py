"""What an HTTP worker knows of the models it serves, kept true by the supervisor over its control socket.

Knows no HTTP. The supervisor never closes that connection while it lives: when it ends, and no new one can be
made, the supervisor is gone and this worker has to go as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from basert.errors import BasertError, InvalidRequest, ModelNotFound, Unavailable
from basert.http.caller import caller
from basert.http.model import Model
from basert.http.orders import Orders
from basert.messages import (
    Message,
    ModelState,
    Outcome,
    Prepared,
    Reload,
    Usage,
    UsageRequest,
    WakeModel,
    Watch,
    WorkerReport,
)
from basert.messages import Models as ModelsMessage
from basert.transport import Connection

__all__ = ["Model", "Models"]

_log = logging.getLogger(__name__)
# The models that the request of this task has chosen.
_held: ContextVar[list[Model] | None] = ContextVar("held models", default=None)


class Models:
    """The registry of one HTTP worker.

    `on_reload` is called when the API keys are to be read again; `on_orphaned` when the supervisor is gone.
    `orders`: what the supervisor can be asked to do.
    """

    def __init__(
        self, control: Path, *, on_orphaned: Callable[[], None], workers: int = 1, listens: bool = True
    ) -> None:
        """workers: HTTP workers of this server. listens: whether clients wait for this process' answers."""
        self.draining = False
        self.drain_seconds = 0.0
        self.on_reload: list[Callable[[], None]] = []
        self.orders = Orders(self._send)
        self._control = control
        self._on_orphaned = on_orphaned
        self._workers = workers
        self._listens = listens
        self._models: dict[int, Model] = {}  # by the build's number
        self._serial = 0  # of the last UsageRequest
        self._open_requests = 0
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._preparing: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Return when the models are known and their tokenizers loaded. Raises OSError."""
        self._connection = await self._watch()
        for message in await self._connection.receive():
            self._apply(message)
        self._reload()  # what changed between this worker's birth and its connection
        await asyncio.gather(*self._preparing)
        self._report()
        self._task = asyncio.create_task(self._follow(), name="models")

    async def stop(self) -> None:
        for task in (self._task, *self._preparing):
            if task is not None:
                task.cancel()
        for model in self._models.values():
            model.engine.close()
        if self._connection is not None:
            self._connection.close()

    def get(self, name: str | None) -> Model:
        """The model for a request, which holds it until it ends (see `visit`).

        Raises as `find`, or Unavailable.
        """
        model = self.find(name)
        model.check()
        held, base = _held.get(), self._models[model.build]
        if held is not None and base not in held:
            held.append(base)
            base.hold()
        return model

    def find(self, name: str | None) -> Model:
        """By name or alias; a model with an adapter by the adapter's name, or as MODEL:ADAPTER.

        Raises ModelNotFound, InvalidRequest when no name is given.
        """
        if not name:
            raise InvalidRequest("you must provide a model parameter", param="model")
        for model in self.all():
            if name in model.names:
                return model
        adapters = self.adapters()
        for model in adapters:
            if name in model.names:
                return model
        served = ", ".join(model.name for model in (*self.all(), *adapters)) or "none"
        raise ModelNotFound(
            f"The model {name!r} is not served here; this server has {served}.", param="model"
        )

    def successor(self, name: str) -> Model | None:
        """The build that is to take this name over, while it is being loaded."""
        return next((model for model in self._models.values() if name in model.awaited_by), None)

    def all(self) -> list[Model]:
        """Those that have a name and that whoever sent the request at hand may use; the others might as well
        not be served."""
        return [one for one in self._models.values() if one.names and _visible(one)]

    def adapters(self) -> list[Model]:
        """Likewise, one for each adapter. A key may be allowed that and not the model without it."""
        found = [model.adapted(info) for model in self._models.values() for info in model.adapters]
        return list(filter(_visible, found))

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """Around each request: the models that it gets are not taken from it before it ends."""
        held: list[Model] = []
        token = _held.set(held)
        try:
            yield
        finally:
            _held.reset(token)
            for model in held:
                model.let_go()
                if not model.held and not model.names:
                    self._tell_usage()

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
        connection.send(Watch(os.getpid(), self._listens))
        return connection

    async def _follow(self) -> None:
        assert self._connection is not None
        while True:
            while messages := await self._connection.receive():
                for message in messages:
                    self._apply(message)
            self._connection.close()
            self.orders.fail(_lost())
            try:
                self._connection = await self._watch()
            except OSError:
                break
            for model in self._models.values():
                if model.prepared or model.trouble:
                    self._send(Prepared(model.build, model.trouble))
            self._tell_usage()
            self._report()
        self._drain(0.0)
        self._on_orphaned()

    def _apply(self, message: object) -> None:
        match message:
            case ModelsMessage():
                self._know(message.models)
                if message.draining:
                    self._drain(message.drain_seconds)
            case Outcome():
                self.orders.receive(message)
            case UsageRequest():
                self._serial = message.serial
                self._tell_usage()
            case Reload():
                self._reload()

    def _reload(self) -> None:
        for callback in self.on_reload:
            callback()

    def _know(self, states: list[ModelState]) -> None:
        for state in states:
            if state.id in self._models:
                self._models[state.id].update(state)
            else:
                self._meet(state)
        for gone in self._models.keys() - {state.id for state in states}:
            self._models.pop(gone).engine.end(_unloaded())

    def _meet(self, state: ModelState) -> None:
        """A build that is new here: it can be used when its files are read."""
        build = state.id

        async def wake() -> None:
            await self.orders.give(lambda number: WakeModel(number, build))

        model = self._models[build] = Model(state, wake, self._workers)
        task = asyncio.create_task(self._prepare(model), name=f"prepare {state.name}")
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _prepare(self, model: Model) -> None:
        try:
            await asyncio.to_thread(model.prepare)
        except BasertError as error:
            _log.error("%s", error.message)
            model.trouble = error.message
        self._send(Prepared(model.build, model.trouble))

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
        self.orders.fail(_shutting_down())
        self.end_within(seconds)
        self._report()

    def _expire(self) -> None:
        for model in self._models.values():
            model.engine.end(_shutting_down())

    def _report(self) -> None:
        self._send(WorkerReport(self._open_requests))

    def _tell_usage(self) -> None:
        models = self._models.values()
        held = {model.build: model.held for model in models if model.held}
        self._send(Usage(self._serial, held, {model.build: model.used for model in models if model.used}))

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(message)


def _visible(model: Model) -> bool:
    """To whoever sent the request at hand."""
    return caller.get().key.allowed(*model.names)


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down; try again.", code="shutting_down", retry_after=5.0)


def _lost() -> Unavailable:
    return Unavailable("The server was disturbed; try again.", code="disturbed", retry_after=1.0)


def _unloaded() -> Unavailable:
    return Unavailable("The model was unloaded; try again.", code="model_unloaded", retry_after=1.0)
