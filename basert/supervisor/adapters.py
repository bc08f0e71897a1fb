"""The adapters of one engine: what it is asked to load and unload, and what the next one is started with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from basert.messages import AdapterDone, AdapterInfo, LoadAdapter, UnloadAdapter
from basert.transport import Connection

Reply = Callable[[AdapterDone], None]
Asked = LoadAdapter | UnloadAdapter


class Adapting:
    """Numbers what is asked of the engine, and finds whom an answer is for."""

    def __init__(self, bundles: Sequence[Path]) -> None:
        self.bundles = list(bundles)  # that an engine is started with
        self._waiting: dict[int, tuple[Asked, Reply]] = {}
        self._next = 1

    def ask(self, message: Asked, engine: Connection | None, reply: Reply) -> None:
        """engine: None when there is none that could be asked. reply: called once, with the message's id."""
        if engine is None:
            reply(AdapterDone(message.id, "the model is not ready; try again."))
            return
        number, self._next = self._next, self._next + 1
        self._waiting[number] = message, reply
        engine.send(msgspec.structs.replace(message, id=number))

    def done(
        self, answer: AdapterDone, loaded: Iterable[AdapterInfo]
    ) -> tuple[list[AdapterInfo], Callable[[], None]]:
        """The adapters that the engine has now, of those that it had; and what passes on its answer, when
        everybody knows them."""
        message, reply = self._waiting.pop(answer.id)
        now = {info.name: info for info in loaded}
        if answer.adapter is not None:
            now[answer.adapter.name] = answer.adapter
        elif isinstance(message, UnloadAdapter) and not answer.error:
            now.pop(message.name, None)
        self.loaded(now.values())
        return list(now.values()), partial(reply, msgspec.structs.replace(answer, id=message.id))

    def loaded(self, adapters: Iterable[AdapterInfo]) -> None:
        """What an engine has, which the next one is to have as well."""
        self.bundles = [Path(info.bundle) for info in adapters]

    def lost(self) -> None:
        """The engine has died: nobody is left waiting."""
        waiting, self._waiting = self._waiting, {}
        for message, reply in waiting.values():
            reply(AdapterDone(message.id, "the engine died meanwhile; try again."))
