"""All engines of a server: started for a build, found by their process, ended together. Decides nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from basert.config import ServeConfig
from basert.logs import Output
from basert.supervisor.build import Build, shares
from basert.supervisor.engine import Assignment, Engine


class Engines:
    """`changed` is called with a build when one of its engines has; `given_up` when one is not tried again,
    with the exception if that is a bug of ours."""

    def __init__(
        self,
        config: ServeConfig,
        folder: Path,
        output: Output,
        changed: Callable[[Build], None],
        given_up: Callable[[BaseException | None], None],
    ) -> None:
        self._config = config
        self._folder = folder
        self._output = output
        self._changed = changed
        self._given_up = given_up
        self._ids = itertools.count(1)
        self._running: dict[asyncio.Task[None], Engine] = {}
        self._ending = False

    def start(self, build: Build, *, on_trial: bool) -> None:
        """on_trial: one that dies before it was ready is not started again."""
        build.engines = [
            self._engine(build, replica, cpu_list, threads, on_trial=on_trial)
            for replica, (cpu_list, threads) in enumerate(shares(self._config, build.number))
        ]
        for engine in build.engines:
            task = asyncio.create_task(engine.run(), name=engine.what)
            self._running[task] = engine
            task.add_done_callback(self._ended)

    def of(self, pid: int) -> Engine | None:
        """The engine that runs as this process."""
        alive = ((engine, engine.child) for engine in self._running.values())
        return next((engine for engine, child in alive if child is not None and child.pid == pid), None)

    def let_die(self) -> None:
        """The server ends: a death is no accident any more."""
        self._ending = True
        for engine in self._running.values():
            engine.let_die()

    async def stop(self) -> None:
        tasks = list(self._running)
        await asyncio.gather(*(engine.stop() for engine in self._running.values()))
        for task in tasks:
            task.cancel()  # those that wait to start something again
        await asyncio.gather(*tasks, return_exceptions=True)

    def kill(self) -> None:
        for engine in self._running.values():
            if engine.child is not None:
                engine.child.kill()

    def _engine(
        self, build: Build, replica: int, cpu_list: str | None, threads: int | None, *, on_trial: bool
    ) -> Engine:
        assigned = Assignment(
            name=build.name,
            bundle=build.bundle.path,
            digest=build.bundle.digest,
            replica=replica,
            cpus=cpu_list,
            threads=threads,
            configured=build.number is not None,
            on_trial=on_trial,
            adapters=lambda: [*build.adapters.values(), *build.coming.values()],
        )

        def changed() -> None:
            self._changed(build)

        return Engine(next(self._ids), assigned, self._config, self._folder, self._output, changed)

    def _ended(self, task: asyncio.Task[None]) -> None:
        engine = self._running.pop(task)
        bug = None if task.cancelled() else task.exception()
        if not self._ending and (bug is not None or engine.failure):
            self._given_up(bug)
