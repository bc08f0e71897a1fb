"""basert as one of the servers: as a user gets it from `basert serve`, but for threads and slots."""

from __future__ import annotations

import sys
from pathlib import Path

from basert.bench.environment import machine
from basert.bench.peers.peer import Peer, Setup


class Basert(Peer):
    name = "basert"
    recipe = "1"
    notes = ("As `basert serve` comes, but for as many threads as the others have, and slots of a decoder.",)
    ready_path = "/readyz"

    def versions(self, room: Path) -> dict[str, str]:
        packages = machine().packages
        return {
            name: packages[name] for name in ("basert", "onnxruntime", "onnxruntime-gpu") if name in packages
        }

    def command(self, setup: Setup, port: int) -> list[str]:
        serve = [sys.executable, "-m", "basert", "serve", str(setup.model.bundle), "--port", str(port)]
        serve += ["--served-model-name", setup.model.name, "--threads", str(setup.threads)]
        if setup.model.family == "decoder":
            serve += ["--continuous-batching", str(setup.streams)]
        return serve


class BasertOnCpu(Basert):
    """What those have who do not install another provider."""

    name = "basert-cpu"
    family = "encoder"
    notes = ("As basert, but for `--provider cpu`: ONNX Runtime's own kernels on the bundle's variant.",)

    def command(self, setup: Setup, port: int) -> list[str]:
        return [*super().command(setup, port), "--provider", "cpu"]
