"""The models of a server while it runs: which are loaded, and which build of one a name means.

    load     a bundle of the store, if there is room; whoever ordered it waits until it can answer
    unload   its names vanish, what has begun may end, then its processes go, and all their memory with them
    swap     a second build beside the first; names move once it can answer in every HTTP worker, or never
    wake     what room.py has put to sleep, for a request that waits

Adapters go with builds: adapters.py loads and unloads them.

Knows builds and what workers use; no connection, no signal. What a client sends never becomes a path here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from basert.config import ServeConfig
from basert.errors import BasertError, Conflict, EngineFailed, Unavailable
from basert.logs import Output
from basert.messages import (
    LoadLora,
    LoadModel,
    ModelState,
    Order,
    SwapModel,
    UnloadLora,
    UnloadModel,
    WakeModel,
)
from basert.supervisor.adapters import Adapters
from basert.supervisor.build import Build
from basert.supervisor.bundles import Bundle, Catalogue
from basert.supervisor.chores import Chores
from basert.supervisor.engines import Engines
from basert.supervisor.folder import BUNDLES
from basert.supervisor.names import Names
from basert.supervisor.news import News
from basert.supervisor.planning import planned
from basert.supervisor.room import Room
from basert.supervisor.workers import Workers

SOON = 2.0  # seconds, told to those whose request could not wake a model

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A bundle that the server is started with, and the names that clients may use for it."""

    name: str
    bundle: Path
    aliases: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()  # to be loaded with it


class Fleet:
    """`changed` is called whenever `states` has. `failure` raises, once the server cannot go on."""

    failure: asyncio.Future[None]

    def __init__(
        self,
        config: ServeConfig,
        folder: Path,
        output: Output,
        workers: Workers,
        news: News,
        changed: Callable[[], None],
    ) -> None:
        self.engines = Engines(config, folder, output, self._engine_changed, self._given_up)
        self._config = config
        self._folder = folder / BUNDLES
        self._workers = workers
        self._news = news
        self._changed = changed
        self._names = Names()
        self._room = Room(config, workers, lambda: list(self._builds.values()), changed)
        self._builds: dict[int, Build] = {}
        self._catalogue = Catalogue(config.require_signature)
        self._ids = itertools.count(1)
        self._chores = Chores()
        self._adapters = Adapters(
            config,
            self._names,
            self._room,
            workers,
            news,
            builds=lambda: self.builds,
            wake=self.wake,
            changed=changed,
            begin=self._chores.begin,
        )

    def start(self, served: Sequence[Served]) -> None:
        """Raises BundleError. With --max-loaded the first ones are loaded, the others sleep."""
        self.failure = asyncio.get_running_loop().create_future()
        for number, one in enumerate(served):
            build = self._build(one.name, self._catalogue.look(one.bundle), number)
            self._catalogue.add(one.bundle, one.name, build.bundle.manifest.name)
            self._builds[build.id] = build
            self._names.add(build, one.aliases)
            self._adapters.give(build, one.adapters)
            if self._config.max_loaded is not None and number >= self._config.max_loaded:
                build.phase = "asleep"
            else:
                self.engines.start(build, on_trial=False)
        if self._config.idle_timeout:
            self._chores.begin(self._room.watch(self._config.idle_timeout))

    @property
    def builds(self) -> list[Build]:
        """Those that can answer, or could."""
        return [build for build in self._builds.values() if build.phase != "gone"]

    @property
    def states(self) -> list[ModelState]:
        return [build.told(self._names.of(build)) for build in self.builds]

    async def carry_out(self, order: Order) -> None:
        """Raises BasertError."""
        match order:
            case LoadModel(model=name):
                await self.load(name)
            case UnloadModel(model=name):
                await self.unload(name)
            case SwapModel(alias=alias, model=name):
                await self.swap(alias, name)
            case WakeModel(build=build):
                await self.wake(build)
            case LoadLora(lora=name, model=model):
                await self._adapters.load(name, model)
            case UnloadLora(lora=name):
                await self._adapters.unload(name)

    async def load(self, name: str) -> None:
        """Return when it can answer; at once if it can.

        Raises InvalidRequest, ModelNotFound, Conflict, BundleError, EngineFailed, and Unavailable for one
        that slept and could not be woken.
        """
        build = before = self._names.find(name)
        if build is not None and build.state == "failed":
            await self._retire(build)
            build = None
        if build is None:
            own = self._names.model(name)
            self._adapters.check_free(own)
            build = await self._begin(own, await self._catalogue.read(own), before=before)
        try:
            await self._until_ready(build)
        except Unavailable:
            anew = self._names.find(name)  # another bundle lay in a sleeper's place
            if anew is None or anew is build:
                raise
            await self._until_ready(anew)

    async def unload(self, name: str) -> None:
        """Return when its processes are gone. Raises ModelNotFound."""
        self._adapters.check_free(name)
        await self._retire(self._names.get(name))

    async def swap(self, alias: str, name: str) -> None:
        """Let `alias` mean the bundle `name` as it is now. Raises as `load`; then nothing has changed."""
        self._adapters.check_free(alias)
        if not self._names.knows(alias):
            self._names.get(alias)  # which raises
        found = await self._catalogue.read(name)
        own = self._own_name(name, found)
        self._names.check_swap(alias, own)
        build = self._names.find(own)
        if build is None or build.bundle.digest != found.digest or build.state == "failed":
            build = await self._begin(own, found, alias)
        await self._until_ready(build)
        await self._adapters.carry(self._names.replaced(alias, own), build)
        replaced = self._names.move(alias, build)
        build.awaited_by = []
        _log.info("%s means %s (%.12s) from now on", alias, own, build.bundle.digest)
        self._changed()
        await asyncio.gather(*map(self._retire, replaced))

    async def wake(self, number: int) -> None:
        """Return when the sleeping build with this number can answer. Raises Unavailable."""
        build = self._builds.get(number)
        if build is None:
            raise _unloaded("The model")
        async with self._room.deciding:
            if build.phase == "asleep":
                await self._rouse(build)
        await self._news.until(lambda: build.phase != "waking")
        if build.phase == "asleep" and build.reason:
            why = f"Model {build.name} cannot be loaded again: {build.reason}"
            raise Unavailable(why, code="model_failed", retry_after=SOON)
        if build.phase in ("leaving", "gone"):
            raise _unloaded(f"Model {build.name}")

    def let_die(self) -> None:
        """The server ends: deaths are no accidents any more, and nobody falls asleep."""
        self._chores.cancel()
        self.engines.let_die()

    async def stop(self) -> None:
        await self.engines.stop()
        await self._chores.wait()

    async def _begin(self, name: str, bundle: Bundle, alias: str = "", before: Build | None = None) -> Build:
        """Start a model's engines: under its own name, or in order to take an alias over. before: the build
        whose adapters it is to have. Raises Conflict."""
        async with self._room.deciding:
            self._adapters.check_free(name)
            if any(one.name == name and one.awaited_by for one in self.builds):
                raise Conflict(f"{name} is being loaded already; wait for that.", param="model")
            if not alias and (there := self._names.find(name)) is not None:
                return there  # somebody else was quicker
            replaced = self._names.replaced(alias, name) if alias else []
            number = replaced[0].number if replaced else self._catalogue.number(name)
            await self._room.make(name, planned(bundle.manifest, self._config), replaced)
            build = await self._made(name, bundle, number, before)
            build.awaited_by = list(dict.fromkeys((alias, name))) if alias else []
            self._enter(build)
        return build

    def _build(self, name: str, bundle: Bundle, number: int | None) -> Build:
        return Build(next(self._ids), name, bundle, self._config, number, self._folder)

    async def _made(self, name: str, bundle: Bundle, number: int | None, before: Build | None) -> Build:
        build = await asyncio.to_thread(self._build, name, bundle, number)
        if before is not None:
            await self._adapters.pass_on(before, build)
        return build

    def _enter(self, build: Build) -> None:
        """It comes because somebody ordered it: the server is as ready as it was."""
        _log.info("loading %s (%.12s), up to %s", build.name, build.bundle.digest, build.plan.shown())
        build.phase = "joining"
        self._builds[build.id] = build
        if not build.awaited_by:
            self._names.add(build)
        self.engines.start(build, on_trial=True)
        self._changed()

    async def _until_ready(self, build: Build) -> None:
        """Raises EngineFailed, with what an engine or a worker says is wrong, when that will never be."""
        if build.phase in ("asleep", "waking"):
            await self.wake(build.id)
            return
        await self._news.until(lambda: build.settled)
        patience = self._config.start_timeout
        if not await self._news.until(lambda: self._workers.prepared(build.id), patience):
            build.reason = build.reason or "an HTTP worker does not answer"
        why = build.trouble or self._workers.trouble(build.id)
        if build.phase == "joining" and not why:
            build.phase = "serving"
            self._changed()
        elif build.phase != "serving" or build.state != "ready":
            build.reason = why or "it was unloaded meanwhile"
            if build.phase == "joining":
                await self._drop(build)
            message = f"{build.name} cannot be loaded: {build.reason}"
            raise EngineFailed(message, param="model", code="load_failed")

    async def _retire(self, build: Build) -> None:
        """Nothing new for it from now on; what has begun may end, for as long as a drain may take."""
        _log.info("unloading %s (%.12s)", build.name, build.bundle.digest)
        self._names.remove(build)
        build.phase = "leaving"
        self._changed()
        if not await self._workers.done_with(build.id, self._config.drain_timeout):
            _log.warning("requests to %s are still open; they end with an error", build.name)
        await self._drop(build)

    async def _drop(self, build: Build) -> None:
        """End its engines, whoever still uses them."""
        self._names.remove(build)
        build.phase = "gone"
        self._changed()
        await build.stop()
        self._builds.pop(build.id, None)
        build.forget()

    async def _rouse(self, build: Build) -> None:
        """Start a sleeping build's engines; with the lock. Raises Unavailable."""
        try:
            found = await asyncio.to_thread(self._catalogue.look, build.bundle.path)
            await self._room.make(build.name, build.plan)
        except BasertError as error:
            raise Unavailable(error.message, code=error.code or "model_failed", retry_after=SOON) from None
        if found.digest != build.bundle.digest:  # HTTP workers have the tokenizer of the old one
            await self._begin_anew(build, found)
        await self._adapters.pass_on(build, build)
        build.phase, build.reason = "waking", ""
        self.engines.start(build, on_trial=True)
        self._changed()
        self._chores.begin(self._rise(build))

    async def _rise(self, build: Build) -> None:
        await self._news.until(lambda: build.settled)
        if build.phase != "waking":
            return
        if build.given_up:
            build.reason = build.trouble
            await build.stop()
        build.phase = "serving" if build.engines else "asleep"
        self._changed()

    async def _begin_anew(self, build: Build, found: Bundle) -> None:
        """Another bundle has come to lie in the place of a sleeping build's. Raises Unavailable."""
        new = await self._made(build.name, found, build.number, build)
        await self._drop(build)
        self._enter(new)
        self._chores.begin(self._until_ready(new))
        message = f"Model {build.name} was exported again and is being loaded; try again."
        raise Unavailable(message, code="model_not_ready", retry_after=SOON)

    def _engine_changed(self, build: Build) -> None:
        build.notice()
        self._adapters.check(build)
        if build.phase == "serving" and not build.stale and any(one.stale for one in build.engines):
            build.stale = True
            self._chores.begin(self._renew(build.name))
        self._changed()

    async def _renew(self, name: str) -> None:
        """An engine could not be started again, another bundle having come to lie in its place."""
        _log.warning("%s was exported again; the new bundle takes its place", name)
        try:
            await self.swap(name, name)
        except BasertError as error:
            _log.error("%s", error.message)
            self._given_up(None)

    def _given_up(self, bug: BaseException | None) -> None:
        """An engine is not tried again; a bug of ours ends the server."""
        if self.failure.done():
            return
        if bug is not None:
            self.failure.set_exception(bug)
        elif self.builds and all(one.phase == "serving" and one.state == "failed" for one in self.builds):
            reasons = "; ".join(f"{build.name}: {build.trouble}" for build in self.builds)
            self.failure.set_exception(Unavailable(f"No model can be served ({reasons})."))

    def _own_name(self, name: str, bundle: Bundle) -> str:
        """What a model is called that is to be made of a bundle: as one is that was made of it before."""
        before = (one for one in self.builds if one.bundle.path == bundle.path and self._names.of(one))
        return next((build.name for build in before), name)


def _unloaded(what: str) -> Unavailable:
    return Unavailable(f"{what} was unloaded; try again.", code="model_unloaded", retry_after=SOON)
