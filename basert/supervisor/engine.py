"""One model's engine process: what it is started with, what state it is in, whether it still answers.

Knows the engine's command line and its control messages; not its sockets for requests, and no other model.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from basert.config import ServeConfig
from basert.logs import Output
from basert.messages import (
    AdapterDone,
    AnyMessage,
    Drain,
    EngineReport,
    LoadAdapter,
    ModelState,
    StatsRequest,
    UnloadAdapter,
)
from basert.supervisor.adapters import Adapting
from basert.supervisor.child import Child
from basert.supervisor.folder import CONTROL
from basert.supervisor.restarts import Kept
from basert.transport import Connection

DRAIN_SECONDS = 5.0  # HTTP has gone by then, so there is nothing left to finish


@dataclass(frozen=True)
class Served:
    """A bundle and the names that clients may use for it."""

    name: str
    bundle: Path
    aliases: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()  # to be loaded with it


class Engine(Kept):
    """`changed` is called whenever `state` has."""

    def __init__(
        self,
        number: int,
        served: Served,
        config: ServeConfig,
        folder: Path,
        output: Output,
        changed: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.state = ModelState(served.name, str(served.bundle), "loading", "", aliases=list(served.aliases))
        self._number = number
        self._config = config
        self._folder = folder
        self._output = output
        self._changed = changed
        self._starts = 0
        self._reason = ""  # the engine's own, when it said one
        self._control: Connection | None = None
        self._heard = asyncio.Event()
        self._adapting = Adapting(served.adapters)

    @property
    def what(self) -> str:
        return f"the engine of {self.state.name}"

    @property
    def settled(self) -> bool:
        """Whether it answers or never will."""
        return self.state.state in ("ready", "failed")

    def attach(self, control: Connection) -> bool:
        """Take over the control connection if its peer is the process that runs now."""
        if self.child is None or control.peer_pid != self.child.pid:
            return False
        self._control = control
        return True

    def receive(self, message: AnyMessage) -> None:
        self._heard.set()
        if isinstance(message, AdapterDone):
            adapters, reply = self._adapting.done(message, self.state.adapters)
            self._set(adapters=adapters)
            reply()
        if not isinstance(message, EngineReport):
            return
        if message.stage == "ready":
            self.useful()
            loaded = message.info.adapters if message.info is not None else []
            self._adapting.loaded(loaded)
            self._set(state="ready", reason="", fraction=1.0, info=message.info, adapters=loaded)
        elif message.stage == "failed":
            self._reason = message.reason
        else:
            self._set(fraction=message.fraction)

    def adapt(self, message: LoadAdapter | UnloadAdapter, reply: Callable[[AdapterDone], None]) -> None:
        """Have the engine load or unload an adapter; `reply` is called once."""
        control = self._control if self.state.state == "ready" else None
        self._adapting.ask(message, control, reply)

    async def stop(self) -> None:
        """End it for good; what it has not begun to serve, it need not finish."""
        self.let_die()
        if self.child is None or not self.child.alive:
            return
        if self.state.state == "ready" and self._control is not None:
            self._control.send(Drain())
            await asyncio.wait([asyncio.ensure_future(self.child.wait())], timeout=DRAIN_SECONDS)
        self.child.kill()
        await self.child.wait()

    def _start(self) -> Child:
        self._starts += 1
        self._reason, self._control = "", None
        socket = self._folder / f"{self._number}-{self._starts}.sock"
        self._set(socket=str(socket), fraction=0.0, info=None)
        return Child(f"engine {self.state.name}", self._command(socket), self._output)

    async def _live(self) -> str:
        watch = asyncio.create_task(self._watch(), name=f"heartbeat of {self.state.name}")
        try:
            return await super()._live()
        finally:
            watch.cancel()
            Path(self.state.socket).unlink(missing_ok=True)

    async def _explain(self, child: Child, status: int) -> str:
        return self._reason or await super()._explain(child, status)

    def _died(self, reason: str, wait: float | None) -> None:
        state = "failed" if wait is None else "restarting"
        self._adapting.lost()
        self._set(state=state, reason=reason, restarts=self.restarts.count, info=None)

    async def _watch(self) -> None:
        """Kill it when it neither becomes ready nor answers in time."""
        try:
            async with asyncio.timeout(self._config.start_timeout):
                while self.state.info is None or self._control is None:
                    await self._next_word()
        except TimeoutError:
            self._kill(f"it was not ready after {self._config.start_timeout:g} s")
            return
        while self._control is not None:
            try:
                async with asyncio.timeout(self._config.heartbeat_timeout):
                    self._control.send(StatsRequest())
                    await self._next_word()
            except TimeoutError:
                self._kill(f"it did not answer for {self._config.heartbeat_timeout:g} s")
                return
            await asyncio.sleep(self._config.heartbeat_timeout / 4)

    async def _next_word(self) -> None:
        self._heard.clear()
        await self._heard.wait()

    def _kill(self, reason: str) -> None:
        self._reason = reason
        if self.child is not None:
            self.child.kill()

    def _set(self, **fields: object) -> None:
        self.state = msgspec.structs.replace(self.state, **fields)
        self._changed()

    def _command(self, socket: Path) -> list[str]:
        config = self._config
        command = [sys.executable, "-m", "engines", "--name", self.state.name, "--bundle", self.state.bundle]
        command += ["--socket", str(socket), "--control", str(self._folder / CONTROL)]
        command += ["--log-format", config.log_format]
        given = {
            "--slots": config.continuous_batching,
            "--max-context": config.max_context,
            "--max-queue": config.max_queue,
            "--batch-wait": config.batch_wait,
            "--provider": config.provider,
            "--threads": config.threads,
            "--cpus": config.engine_cpus(self._number),
            "--numa-node": config.numa_node,
            "--max-loras": config.max_loras,
        }
        for flag, value in given.items():
            command += [] if value is None else [flag, str(value)]
        if config.spin is not None:
            command.append("--spin" if config.spin else "--no-spin")
        for bundle in self._adapting.bundles:
            command += ["--lora", str(bundle)]
        if not config.speculation:
            command.append("--no-speculation")
        if not config.prefix_cache:
            command.append("--no-prefix-cache")
        if config.prefix_cache_file is not None:
            command += ["--prefix-cache-file", str(self._prefix_file(config.prefix_cache_file))]
        return command

    def _prefix_file(self, path: Path) -> Path:
        """Each model's own, also when their names hold slashes."""
        if len(self._config.model) < 2:
            return path.absolute()
        return path.absolute().with_name(f"{path.name}.{quote(self.state.name, safe='')}")
