"""One engine process: what it is started with, what state it is in, whether it still answers.

Knows the engine's command line and its control messages; not its sockets for requests, and no other engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from basert import signing
from basert.config import ServeConfig
from basert.errors import BasertError, BundleError
from basert.logs import Output
from basert.messages import (
    AdapterDone,
    AdapterInfo,
    AnyMessage,
    Drain,
    EngineReport,
    EngineState,
    StatsRequest,
)
from basert.supervisor.adapting import Adapting
from basert.supervisor.child import Child
from basert.supervisor.folder import CONTROL
from basert.supervisor.restarts import Kept
from basert.transport import Connection

DRAIN_SECONDS = 5.0  # requests have gone by then, so there is nothing left to finish

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """What an engine is to run, and where."""

    name: str  # the model's
    bundle: Path
    digest: str
    replica: int = 0
    replicas: int = 1
    cpus: str | None = None
    threads: int | None = None
    configured: bool = True  # one of the models that the server was started with
    on_trial: bool = False  # given up at its first death, until it was ready once
    adapters: Callable[[], Sequence[AdapterInfo]] = tuple  # to be loaded with it; asked at every start


class Engine(Kept):
    """`changed` is called whenever `state` has. `id`: no other engine of this server ever has it."""

    def __init__(
        self,
        id: int,  # noqa: A002
        assigned: Assignment,
        config: ServeConfig,
        folder: Path,
        output: Output,
        changed: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.state = EngineState(id)
        self.assigned = assigned
        self._config = config
        self._folder = folder
        self._output = output
        self._changed = changed
        self.stale = False  # there is another bundle where its own was; it is not started again
        self._starts = 0
        self._reason = ""  # the engine's own, when it said one
        self._control: Connection | None = None
        self._heard = asyncio.Event()
        self.adapters = Adapting()
        self._given: list[Path] = []  # adapters that it is started with
        if assigned.on_trial:
            self.restarts.limit = 1

    @property
    def what(self) -> str:
        return f"the engine of {self.assigned.name}"

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
            self.adapters.receive(message)
        if not isinstance(message, EngineReport):
            return
        if message.stage == "ready" and message.info is not None:
            self._ready(message)
        elif message.stage == "failed":
            self._reason = message.reason
        else:
            self._set(stage=message.stage, fraction=message.fraction)

    def _ready(self, report: EngineReport) -> None:
        assert report.info is not None
        if report.info.digest != self.assigned.digest:  # HTTP workers have the tokenizer of the other one
            self.let_die()
            self._kill("its bundle was exported again meanwhile")
            self.stale = True
            self._set(state="failed", reason=self._reason)
            return
        if self._control is not None:
            self.adapters.begin(self._control, report.info.adapters)
        self.useful()
        self.restarts.limit = self._config.restart_limit
        self._set(state="ready", reason="", stage="", fraction=1.0, info=report.info)

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
        socket = self._folder / f"{self.state.id}-{self._starts}.sock"
        self._set(socket=str(socket), stage="", fraction=0.0, info=None)
        return Child(f"engine {self.assigned.name}", self._command(socket), self._output)

    async def _live(self) -> str:
        try:
            await self._check_signature()
            self._given = await asyncio.to_thread(self._signed, self.assigned.adapters())
        except BasertError as error:
            return error.message
        if self.is_ending():
            return ""
        watch = asyncio.create_task(self._watch(), name=f"heartbeat of {self.assigned.name}")
        try:
            return await super()._live()
        finally:
            watch.cancel()
            self.adapters.end()
            Path(self.state.socket).unlink(missing_ok=True)

    async def _check_signature(self) -> None:
        """At every start. Raises BundleError, ConfigError."""
        key = self._config.require_signature
        if key is not None:
            await asyncio.to_thread(signing.verify, self.assigned.bundle, key)

    def _signed(self, adapters: Sequence[AdapterInfo]) -> list[Path]:
        """Those that are, if they have to be: the others it has to do without. Raises ConfigError."""
        key, found = self._config.require_signature, []
        for path in (Path(info.bundle) for info in adapters):
            try:
                if key is not None:
                    signing.verify(path, key)
            except BundleError as error:
                _log.error("%s is not loaded: %s", path, error.message)
            else:
                found.append(path)
        return found

    async def _explain(self, child: Child, status: int) -> str:
        return self._reason or await super()._explain(child, status)

    def _died(self, reason: str, wait: float | None) -> None:
        state = "failed" if wait is None else "restarting"
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
        assigned = self.assigned
        command = [sys.executable, "-m", "engines", "--name", assigned.name, "--bundle", str(assigned.bundle)]
        command += ["--socket", str(socket), "--control", str(self._folder / CONTROL)]
        command += ["--log-format", config.log_format]
        given = {
            "--slots": config.continuous_batching,
            "--max-context": config.max_context,
            "--max-queue": config.max_queue,
            "--batch-wait": config.batch_wait,
            "--provider": config.provider,
            "--threads": assigned.threads,
            "--cpus": assigned.cpus,
            "--numa-node": config.numa_node,
            "--max-loras": config.max_loras,
        }
        for flag, value in given.items():
            command += [] if value is None else [flag, str(value)]
        for path in self._given:
            command += ["--lora", str(path)]
        if config.spin is not None:
            command.append("--spin" if config.spin else "--no-spin")
        if not config.speculation:
            command.append("--no-speculation")
        if not config.prefix_cache:
            command.append("--no-prefix-cache")
        if config.require_signature is not None:
            command += signing.engine_flags(self.assigned.bundle)
        if config.prefix_cache_file is not None:
            command += ["--prefix-cache-file", str(self._prefix_file(config.prefix_cache_file))]
        return command

    def _prefix_file(self, path: Path) -> Path:
        """Each model's own, also when their names hold slashes, and each replica's."""
        parts = [path.name]
        if self._config.model[1:] or not self.assigned.configured:
            parts.append(quote(self.assigned.name, safe=""))
        if self.assigned.replica:
            parts.append(str(self.assigned.replica))
        return path.absolute().with_name(".".join(parts))
