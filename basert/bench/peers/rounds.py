"""The order of a comparison: rounds, in each of which every workload goes from server to server.

In a round all servers run; the one that is measured has the machine, the others have no request. How much
CPU those took all the same is noted with every sample. Who goes first changes from workload to workload and
from round to round. Each round starts its servers anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from basert.bench.peers.peer import PeerFailed
from basert.bench.peers.processes import cpu_seconds
from basert.bench.peers.results import Comparison, Failure, Sample
from basert.bench.peers.running import Entrant, Running, running
from basert.bench.peers.trial import Discipline, Trial
from basert.client import RequestFailed
from basert.progress import Show, note

START = "start"  # the workload that is measured in passing
TRIAL_SECONDS = 300.0  # one workload on one server; then it counts as failed
SETTLE_SECONDS = 0.3  # between two servers: connections close, threads that spin fall asleep

One = TypeVar("One")


@dataclass(frozen=True)
class Plan:
    trials: Sequence[Trial[Any]]
    repetitions: int
    seconds: float  # for everything; what is not measured by then is left out


def turned(ones: Sequence[One], by: int) -> list[One]:
    """Another one first each time, and the direction changes with every whole turn."""
    if not ones:
        return []
    turns, start = divmod(by, len(ones))
    order = [*ones[start:], *ones[:start]]
    return order[::-1] if turns % 2 else order


class Rounds:
    """Fills the report; a server that fails is named in it and left out from then on."""

    def __init__(self, plan: Plan, discipline: Discipline[Any], report: Comparison, show: Show) -> None:
        self._plan, self._discipline = plan, discipline
        self._report, self._show = report, show
        self._began = time.perf_counter()
        self._total = self._done = 0  # steps, of which a server takes one to start and one for each trial

    async def run(self, entrants: Sequence[Entrant]) -> None:
        self._total = self._plan.repetitions * len(entrants) * (1 + len(self._plan.trials))
        try:
            async with asyncio.timeout(self._plan.seconds):
                for number in range(self._plan.repetitions):
                    await self._round(number, entrants)
                    self._step((number + 1) * len(entrants) * (1 + len(self._plan.trials)))
                self._report.complete = True
        except TimeoutError:
            self._report.skipped.append(f"what was not measured within {self._plan.seconds:g} s")

    async def _round(self, number: int, entrants: Sequence[Entrant]) -> None:
        async with AsyncExitStack() as stack:
            servers: list[Running] = []
            for entrant in turned(entrants, number):
                if entrant.name not in self._report.left_out:
                    servers += await self._start(stack, number, entrant)
                self._step()
            servers.sort(key=lambda server: entrants.index(server.entrant))
            for index, trial in enumerate(self._plan.trials):
                for server in turned(servers, number + index):
                    if server.name not in self._report.left_out:
                        await self._measure(number, trial, server, servers)
                    self._step()

    async def _start(self, stack: AsyncExitStack, number: int, entrant: Entrant) -> list[Running]:
        """The server, or none when it failed."""
        try:
            server = await stack.enter_async_context(running(entrant, self._discipline))
        except PeerFailed as error:
            self._leave_out(entrant.name, error.message)
            return []
        self._keep(number, server, START, server.started, {})
        return [server]

    async def _measure(
        self, number: int, trial: Trial[Any], server: Running, servers: Sequence[Running]
    ) -> None:
        others = {other.name: other.process.pid for other in servers if other is not server}
        await asyncio.sleep(SETTLE_SECONDS)
        before, start = {name: cpu_seconds(pid) for name, pid in others.items()}, time.perf_counter()
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                values = await trial.measure(server.subject)
        except RequestFailed as error:
            self._failed(number, trial, server, error.message)
        except TimeoutError:
            self._failed(number, trial, server, f"it was not done within {TRIAL_SECONDS:g} s.")
        else:
            seconds = time.perf_counter() - start
            idle = {name: (cpu_seconds(pid) - before[name]) / seconds for name, pid in others.items()}
            self._keep(number, server, trial.name, values, idle)

    def _keep(
        self, number: int, server: Running, workload: str, values: dict[str, float], idle: dict[str, float]
    ) -> None:
        at = time.perf_counter() - self._began
        self._report.samples.append(Sample(number, at, server.name, workload, values, idle))

    def _failed(self, number: int, trial: Trial[Any], server: Running, reason: str) -> None:
        """A workload that failed says nothing of the next one, unless the server has died of it."""
        note(f"{server.name}, {trial.name}: {reason}")
        self._report.failures.append(Failure(number, server.name, trial.name, reason))
        if not server.process.alive:
            self._leave_out(server.name, f"it died during {trial.name}: {server.process.last_words()}")

    def _leave_out(self, name: str, reason: str) -> None:
        note(f"{name} is left out: {reason}")
        self._report.left_out[name] = reason

    def _step(self, done: int | None = None) -> None:
        """One more, or as many as `done`: who was left out takes no steps."""
        self._done = self._done + 1 if done is None else done
        self._show(self._done, self._total)
