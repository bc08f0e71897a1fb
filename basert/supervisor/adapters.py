"""The adapters of a server's models: which build has which. Every engine of a build has all of them.

    load     into each engine of its base, or into none of them
    unload   its names vanish, what has begun may end; then its engines forget it
    carry    from a build to the one that takes its place, where they were made for both

Decides what engines are asked for; adapting.py asks them. What a client sends never becomes a path here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from basert.adapter import Adapter, check_base
from basert.config import ServeConfig
from basert.errors import BasertError, BundleError, Conflict, InvalidRequest, ModelNotFound, Unavailable
from basert.messages import AdapterInfo
from basert.supervisor import bundles
from basert.supervisor.build import Build
from basert.supervisor.names import Names
from basert.supervisor.news import News
from basert.supervisor.planning import check_adapter
from basert.supervisor.room import ANSWER_SECONDS, Room
from basert.supervisor.workers import Workers

_log = logging.getLogger(__name__)


class Adapters:
    """`builds` are all that there are. `wake` returns when a sleeping build can answer, `changed` is called
    when a build's adapters have, `begin` lets something go on by itself."""

    def __init__(
        self,
        config: ServeConfig,
        names: Names,
        room: Room,
        workers: Workers,
        news: News,
        *,
        builds: Callable[[], list[Build]],
        wake: Callable[[int], Awaitable[None]],
        changed: Callable[[], None],
        begin: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._config = config
        self._names = names
        self._room = room
        self._workers = workers
        self._news = news
        self._builds = builds
        self._wake = wake
        self._changed = changed
        self._begin = begin
        self._known: dict[str, Path] = {}  # what the server was started with, wherever it lies

    def give(self, build: Build, paths: Sequence[Path]) -> None:
        """Before its engines start, and at the server's. Raises BundleError, ConfigError."""
        for path in paths:
            _, info = bundles.read_adapter(path, self._config.require_signature)
            self._known[info.name] = path
            build.adapters[info.name] = info

    async def load(self, name: str, model: str) -> None:
        """Return when it can be used. model: what it belongs to; "": whichever it was exported for.

        Raises InvalidRequest, ModelNotFound, Conflict, Unavailable.
        """
        adapter, info = await asyncio.to_thread(self._read, name)
        build = self._base(adapter, model)
        async with self._room.deciding:  # so that no model gets that name meanwhile
            self._check_name(info.name, build)
            if build.adapters.get(info.name) == info:
                return
            self._expect(build, info)
        await self._add(build, info)
        if not self._names.of(build):
            raise Conflict(f"{build.name} was unloaded or swapped meanwhile; try again.", param="model")

    async def unload(self, name: str) -> None:
        """Return when the last request that used it is over. Raises ModelNotFound."""
        having = [build for build in self._builds() if name in build.adapters]
        if any(name in build.coming for build in self._builds()):
            raise Conflict(f"The adapter {name} is being loaded; unload it after that.", param="lora")
        if not having:
            raise ModelNotFound(f"No adapter {name!r} is loaded.", param="lora")
        for build in having:
            del build.adapters[name]
        self._changed()
        await asyncio.gather(*(_forgotten(build, name) for build in having))

    async def carry(self, replaced: Sequence[Build], build: Build) -> None:
        """Into the build that is about to take their place; the log says what does not come along."""
        having = [info for old in replaced if old is not build for info in old.adapters.values()]
        for info in await self._usable(having, build):
            unloaded = all(info.name not in old.adapters for old in replaced)  # while they were looked at
            if unloaded or info.name in build.adapters:
                continue
            try:
                self._expect(build, info)
                await self._add(build, info)
            except BasertError as error:
                _log.warning("%s no longer has the adapter %s: %s", build.name, info.name, error.message)

    async def pass_on(self, before: Build, build: Build) -> None:
        """To a build whose engines are yet to start, perhaps the same; the log says what it does not get."""
        usable = await self._usable(list(before.adapters.values()), build)
        build.adapters = {info.name: info for info in usable if info.name in before.adapters}

    def check_free(self, name: str) -> None:
        """Before a model gets that name. Raises Conflict."""
        if (build := self._having(name)) is not None:
            raise Conflict(
                f"{name} is an adapter of {build.name}, not a model; POST /v1/lora/unload unloads it.",
                param="model",
            )

    def check(self, build: Build) -> None:
        """Have build and engines agree. What an engine could not load again, the build loses; what the build
        has lost, or never got, the engine."""
        for engine in build.able:
            has = engine.adapters.loaded
            for name in [name for name, info in build.adapters.items() if has.get(name) != info]:
                _log.error("%s no longer has the adapter %s; load it again", build.name, name)
                del build.adapters[name]
                self._begin(_forgotten(build, name))
            for name in has.keys() - build.adapters.keys() - build.coming.keys():
                self._begin(engine.adapters.unload(name))

    @staticmethod
    def _expect(build: Build, info: AdapterInfo) -> None:
        """From now on it is among what comes, and the build stays awake. Raises Conflict when there is no
        memory for it."""
        check_adapter(info.name, build.growth(info))
        build.coming[info.name] = info

    async def _add(self, build: Build, info: AdapterInfo) -> None:
        """What is expected, into every engine or none. Raises Conflict, Unavailable."""
        try:
            await self._make_able(build)
            outcomes = await asyncio.gather(*(engine.adapters.load(info) for engine in build.able))
            if error := next(filter(None, outcomes), None):
                raise error
            build.adapters[info.name] = info
        finally:
            del build.coming[info.name]
            self.check(build)  # it failed: those who have it forget it
        _log.info("%s has the adapter %s (%.12s)", build.name, info.name, info.digest)
        self._changed()
        await self._workers.asked(ANSWER_SECONDS)  # whichever is asked next has heard of it

    async def _make_able(self, build: Build) -> None:
        """Raises Unavailable when not all its engines come to answer."""
        if build.phase in ("asleep", "waking"):
            await self._wake(build.id)
        await self._news.until(lambda: build.settled)
        if build.phase not in ("serving", "joining") or build.state != "ready":
            why = f"Model {build.name} is not ready; try again."
            raise Unavailable(why, code="model_not_ready", retry_after=2.0)

    async def _usable(self, having: Sequence[AdapterInfo], build: Build) -> list[AdapterInfo]:
        """Those that fit a build, as they are now."""
        manifest, signed_with = build.bundle.manifest, self._config.require_signature
        return await asyncio.to_thread(bundles.usable, having, manifest, signed_with)

    def _read(self, name: str) -> tuple[Adapter, AdapterInfo]:
        path = self._known.get(name) or bundles.find_adapter(name)
        try:
            adapter, info = bundles.read_adapter(path, self._config.require_signature)
        except BundleError as error:
            raise Conflict(_sentence(error.message), param="lora") from None
        if info.name != name:
            raise Conflict(
                f"The adapter in {name} calls itself {info.name}; call its folder so, too.", param="lora"
            )
        return adapter, info

    def _base(self, adapter: Adapter, model: str) -> Build:
        """Raises ModelNotFound, InvalidRequest."""
        build = self._names.get(model) if model else self._fitting(adapter)
        try:
            check_base(adapter, build.bundle.manifest)
        except BundleError as error:
            raise InvalidRequest(_sentence(error.message), param="model") from None
        return build

    def _fitting(self, adapter: Adapter) -> Build:
        """What it was exported for; if that is not served, what it might have been. Raises InvalidRequest."""
        served = [build for build in self._builds() if self._names.of(build)]
        fits = [
            one for one in served if (lora := one.bundle.manifest.lora) and lora.base == adapter.base_hash
        ]
        named = [one for one in served if one.bundle.manifest.name == adapter.base]
        if found := [*fits, *named, *(served if len(served) == 1 else [])]:
            return found[0]
        raise InvalidRequest(
            f"The adapter {adapter.name} was made for {adapter.base}, which is not served here.", param="lora"
        )

    def _check_name(self, name: str, build: Build) -> None:
        """Raises Conflict when it means something else."""
        if self._names.knows(name) or any(one.name == name for one in self._builds()):
            raise Conflict(
                f"A model is served as {name}; export the adapter under another name.", param="lora"
            )
        other = self._having(name)
        if other is not None and (other is not build or name in build.coming):
            raise Conflict(
                f"An adapter {name} of {other.name} is there, or being loaded; unload that one first.",
                param="lora",
            )

    def _having(self, name: str) -> Build | None:
        """What has an adapter of that name, or is to have it."""
        served = (build for build in self._builds() if self._names.of(build))
        return next((one for one in served if name in one.adapters or name in one.coming), None)


async def _forgotten(build: Build, name: str) -> None:
    """Return when no engine of a build has it any more."""
    await asyncio.gather(*(engine.adapters.unload(name) for engine in build.engines))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
