"""control.sock: engines report here, HTTP workers are told here what the models' state is, and give orders.

Knows connections and who is at their other end; what a report or an order means is others' business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from basert.errors import BasertError, Unavailable
from basert.messages import AnyMessage, EngineReport, Models, Order, Outcome, Watch
from basert.supervisor.engine import Engine
from basert.supervisor.workers import Worker, Workers
from basert.transport import Connection, serve

_log = logging.getLogger(__name__)


class Control:
    """`engine_of` finds an engine by its process; `greeting` is what a new worker is sent; `carry_out` does
    what a worker orders, or raises BasertError; `changed` is called when a worker comes, reports or goes."""

    def __init__(
        self,
        workers: Workers,
        *,
        engine_of: Callable[[int], Engine | None],
        greeting: Callable[[], Models],
        carry_out: Callable[[Order], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._workers = workers
        self._engine_of = engine_of
        self._greeting = greeting
        self._carry_out = carry_out
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._orders: set[asyncio.Task[None]] = set()
        self._ending = False

    async def start(self, path: Path) -> None:
        self._server = await serve(path, self._serve)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def end_orders(self) -> None:
        """The server ends, and with it whatever those that are under way began."""
        self._ending = True
        for task in self._orders:
            task.cancel()

    async def _serve(self, connection: Connection) -> None:
        messages = await connection.receive()
        match messages[:1]:
            case [EngineReport()]:
                await self._serve_engine(connection, messages)
            case [Watch() as watch]:
                await self._serve_worker(connection, messages, listens=watch.listens)
            case _:
                _log.warning("process %d said nothing sensible on the control socket", connection.peer_pid)

    async def _serve_engine(self, connection: Connection, messages: list[AnyMessage]) -> None:
        engine = self._engine_of(connection.peer_pid)
        if engine is None or not engine.attach(connection):
            return
        while messages:
            for message in messages:
                engine.receive(message)
            messages = await connection.receive()

    async def _serve_worker(
        self, connection: Connection, messages: list[AnyMessage], *, listens: bool
    ) -> None:
        worker = self._workers.add(connection, listens=listens)
        connection.send(self._greeting())
        try:
            while messages:
                for message in messages:
                    if isinstance(message, Order):
                        self._begin(worker, message)
                    else:
                        self._workers.receive(worker, message)
                self._changed()
                messages = await connection.receive()
        finally:
            self._workers.remove(worker)
            self._changed()

    def _begin(self, worker: Worker, order: Order) -> None:
        task = asyncio.create_task(self._answer(worker, order), name=f"order {order}")
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _answer(self, worker: Worker, order: Order) -> None:
        """Whoever gave the order may have gone by its end; it is carried out nevertheless."""
        try:
            if self._ending:
                raise Unavailable("The server is shutting down.", code="shutting_down", retry_after=5.0)
            await self._carry_out(order)
            outcome = Outcome(order.id)
        except BasertError as error:
            outcome = Outcome(
                order.id,
                error.status,
                error.message,
                error.code or "",
                error.param or "",
                error.retry_after or 0.0,
            )
        except Exception:
            _log.exception("an order failed: %s", order)
            outcome = Outcome(order.id, BasertError.status, "The server failed to do that; see its log.")
        worker.connection.send(outcome)
