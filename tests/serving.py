"""Real servers for tests: `Server(["tiny"], ...)` runs `basert serve` on a free port until it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from openai import OpenAI

from basert.cli.local import LocalServer


class Server(LocalServer):
    """A `basert serve` child with one worker and one engine thread, unless flags say otherwise.

    Starts at once; `with Server([bundle]) as server:` also waits and stops it. `.url`, `.pid`, `.port`,
    `.log()`, and `.stop(signal)`, which returns the exit status. Failing to start raises with its last
    line.
    """

    def __init__(
        self,
        bundles: Sequence[Path | str],
        flags: Sequence[str] = (),
        *,
        api_key: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        defaults = ("--workers", "1", "--threads", "1")
        self._clients: list[OpenAI] = []
        super().__init__([str(bundle) for bundle in bundles], (*defaults, *flags), api_key=api_key, env=env)

    def openai(self, **options: object) -> OpenAI:
        """The official client, pointed here; closed when the server is stopped, if not before."""
        client = OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key or "none", **options)  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        while self._clients:
            self._clients.pop().close()
        return super().stop(how)

    def processes(self) -> list[psutil.Process]:
        """The supervisor, engines and workers, as they are now."""
        supervisor = psutil.Process(self.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self.processes())
