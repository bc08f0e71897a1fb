"""One build of a model, and the engines that run it: what they come to together. Decides nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from basert import cpus
from basert.config import ServeConfig
from basert.messages import AdapterInfo, ModelState
from basert.supervisor import bundles
from basert.supervisor.bundles import Bundle
from basert.supervisor.engine import Engine
from basert.supervisor.planning import Plan, planned

# "joining": loaded because somebody ordered it, not ready yet; "leaving": what has begun may end
Phase = Literal["serving", "joining", "asleep", "waking", "leaving", "gone"]


class Build:
    """`number`: its place among the models that the server was started with, if it has one."""

    def __init__(
        self,
        id: int,  # noqa: A002
        name: str,
        bundle: Bundle,
        config: ServeConfig,
        number: int | None,
        folder: Path,
    ) -> None:
        """folder: where those of a server lie; this one's texts are kept there. Raises BundleError."""
        self.id = id
        self.name = name
        self.bundle = bundle
        self.number = number
        self.texts = folder / str(id)
        bundles.keep(bundle, self.texts)
        self._config = config
        self.engines: list[Engine] = []
        self.adapters: dict[str, AdapterInfo] = {}  # that all its engines have, by name
        self.coming: dict[str, AdapterInfo] = {}  # those that they are being asked to load
        self.phase: Phase = "serving"
        self.awaited_by: list[str] = []  # names that it takes over once it is ready
        self.reason = ""  # why it is asleep, if it could not be woken
        self.ready_since = 0.0  # time.monotonic
        self.stale = False  # an engine could not be started again, there being another bundle in its place
        self._was_ready = False

    @property
    def state(self) -> str:
        """As ModelState has it: its engines' best."""
        if self.phase == "leaving":
            return "unloading"
        if self.phase in ("asleep", "waking"):
            return self.phase
        states = {engine.state.state for engine in self.engines}
        return next(state for state in ("ready", "loading", "restarting", "failed") if state in states)

    @property
    def plan(self) -> Plan:
        """With its adapters."""
        return self._planned([*self.adapters.values(), *self.coming.values()])

    def growth(self, adapter: AdapterInfo) -> int:
        """Bytes that its engines take more with that one."""
        given = [*self.adapters.values(), *self.coming.values()]
        return self._planned([*given, adapter]).total - self._planned(given).total

    def _planned(self, adapters: Sequence[AdapterInfo]) -> Plan:
        return planned(self.bundle.manifest, self._config, list(map(bundles.factor_bytes, adapters)))

    @property
    def settled(self) -> bool:
        """Whether all its engines answer or never will."""
        return all(engine.settled for engine in self.engines)

    @property
    def able(self) -> list[Engine]:
        """Its engines that answer."""
        return [engine for engine in self.engines if engine.state.state == "ready"]

    @property
    def trouble(self) -> str:
        """Why one of its engines is given up or being restarted, or nothing."""
        return next((engine.state.reason for engine in self.engines if engine.state.reason), self.reason)

    @property
    def given_up(self) -> bool:
        """Whether one of its engines is."""
        return any(engine.state.state == "failed" for engine in self.engines)

    def told(self, names: Sequence[str]) -> ModelState:
        most = self.bundle.manifest.max_context
        return ModelState(
            id=self.id,
            name=self.name,
            bundle=str(self.texts),
            digest=self.bundle.digest,
            state=self.state,
            replicas=[engine.state for engine in self.engines],
            names=list(names),
            awaited_by=self.awaited_by,
            reason=self.trouble,
            adapters=list(self.adapters.values()),
            max_context=min(self._config.max_context or most, most),
            needed=self.phase == "serving",
        )

    def notice(self) -> None:
        """One of its engines has changed."""
        ready = self.state == "ready"
        if ready and not self._was_ready:
            self.ready_since = time.monotonic()
        self._was_ready = ready

    async def stop(self) -> None:
        """End its engines."""
        await asyncio.gather(*(engine.stop() for engine in self.engines))
        self.engines = []
        self._was_ready = False

    def forget(self) -> None:
        """Nobody reads its texts any more."""
        shutil.rmtree(self.texts, ignore_errors=True)

    def promised(self) -> int:
        """Bytes that its engines may take beyond what they have now."""
        return max(0, self.plan.total - sum(map(_private_bytes, self.engines))) if self.engines else 0


def shares(config: ServeConfig, number: int | None) -> list[tuple[str | None, int | None]]:
    """CPUs and threads of each engine of the model with that place; None leaves them to the engine."""
    named = config.engine_cpus(number)
    if config.replicas == 1:
        return [(named, config.threads)]
    usable = os.sched_getaffinity(0)
    if named is not None:
        usable = set(cpus.parse(named, "--cpus"))
    elif config.numa_node is not None:
        usable = set(cpus.of_node(config.numa_node, "--numa-node"))
    divided = cpus.divided(usable, config.replicas)
    return [(cpus.shown(share), config.threads or threads) for share, threads in divided]


def _private_bytes(engine: Engine) -> int:
    """Memory that is the process' own; the pages of a mapped file the kernel can drop and read again."""
    if engine.child is None or not engine.child.alive:
        return 0
    try:
        found = re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{engine.child.pid}/status").read_text(), re.M)
    except OSError:  # it has just ended
        return 0
    return int(found[1]) << 10 if found else 0
