"""One engine's adapters: which it has, and what it is asked about them. Knows its control connection only."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

from basert.errors import BasertError, Conflict, Unavailable
from basert.messages import AdapterDone, AdapterInfo, LoadAdapter, UnloadAdapter
from basert.transport import Connection


class Adapting:
    """`loaded`: what the engine has, and is not asked to let go; while none runs, what the last one had."""

    def __init__(self) -> None:
        self.loaded: dict[str, AdapterInfo] = {}
        self._engine: Connection | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[AdapterDone]] = {}

    def begin(self, engine: Connection, loaded: Iterable[AdapterInfo]) -> None:
        """It has become ready, with these."""
        self._engine = engine
        self.loaded = {info.name: info for info in loaded}

    def end(self) -> None:
        """It is gone: nobody is left waiting."""
        self._engine = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.cancel()

    async def load(self, adapter: AdapterInfo) -> BasertError | None:
        """None when it can be used, else why not."""
        done = await self._answer(lambda number: LoadAdapter(number, adapter.bundle))
        if done is None:
            return Unavailable("The engine ended meanwhile; try again.", code="model_not_ready")
        if done.adapter is None:
            return Conflict(_sentence(done.error), param="lora")
        self.loaded[done.adapter.name] = done.adapter
        if done.adapter != adapter:
            return Conflict(
                f"The adapter {adapter.name} was exported again meanwhile; try again.", param="lora"
            )
        return None

    async def unload(self, name: str) -> None:
        """Return when the last request that used it is over, or the engine is gone."""
        self.loaded.pop(name, None)
        await self._answer(lambda number: UnloadAdapter(number, name))

    def receive(self, done: AdapterDone) -> None:
        waiting = self._waiting.get(done.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(done)

    async def _answer(self, message: Callable[[int], LoadAdapter | UnloadAdapter]) -> AdapterDone | None:
        """None when the engine is gone."""
        if self._engine is None:
            return None
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._engine.send(message(number))
        try:
            await asyncio.wait([waiting])
        finally:
            del self._waiting[number]
        return None if waiting.cancelled() else waiting.result()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
