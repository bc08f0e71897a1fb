"""The process that runs batches, as a child: started with --files-dir only. Knows nothing of batches."""

from __future__ import annotations

import sys
from pathlib import Path

from basert.config import ServeConfig
from basert.logs import Output
from basert.supervisor.child import Child
from basert.supervisor.folder import METRICS
from basert.supervisor.restarts import Kept

END_SECONDS = 5.0  # for it to give up what it does; another goes on with that


class Jobs(Kept):
    def __init__(self, config: ServeConfig, folder: Path, output: Output) -> None:
        super().__init__(config)
        self._folder = folder
        self._output = output

    @property
    def what(self) -> str:
        return "the process that runs batches"

    async def stop(self) -> None:
        self.let_die()
        if self.child is not None and self.child.alive:
            await self.child.end(END_SECONDS)

    def _start(self) -> Child:
        self._forget_gauges()
        self.useful()  # nobody waits for its word
        metrics = self._folder / METRICS
        metrics.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "basert.jobs", str(self._folder)]
        return Child("jobs", command, self._output, env={"PROMETHEUS_MULTIPROC_DIR": str(metrics)})

    def _died(self, reason: str, wait: float | None) -> None:
        """What it did is done again, and nobody sees a difference."""

    def _forget_gauges(self) -> None:
        """Those of the process that died."""
        if self.child is not None:
            for gauge in (self._folder / METRICS).glob(f"gauge_live*_{self.child.pid}.db"):
                gauge.unlink(missing_ok=True)
