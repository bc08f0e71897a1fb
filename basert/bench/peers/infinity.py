"""Infinity, a server for embeddings, on torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basert.bench.peers import tools
from basert.bench.peers.encoders import TORCH
from basert.bench.peers.peer import Peer, Setup

VERSION = "0.0.78"
PINS = ("transformers==4.57.6", "sentence-transformers==3.4.1")


class Infinity(Peer):
    name = "infinity"
    home = "infinity"
    family = "encoder"
    recipe = f"{VERSION}-1"
    dtype: ClassVar[str] = "float32"
    notes: ClassVar[tuple[str, ...]] = (
        "Its torch engine in float32 on the CPU, batches of up to 32 (64 were no faster), without"
        " torch.compile and its cache on disk, which would answer a text that it has seen.",
        "Without BetterTransformer: optimum 1.24 with transformers 4.48 was tried, and no faster than the"
        " sdpa attention that transformers has by now.",
    )
    ready_path = "/health"
    start_seconds = 180.0

    def install(self, room: Path) -> None:
        tools.pip_install(room, TORCH, f"infinity-emb[server,torch]=={VERSION}", *PINS)

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(
            room, "infinity-emb", "sentence-transformers", "transformers", "torch"
        )

    def command(self, setup: Setup, port: int) -> list[str]:
        server = [str(tools.python(setup.room).parent / "infinity_emb"), "v2", "--url-prefix", "/v1"]
        model = ["--model-id", str(setup.model.source()), "--served-model-name", setup.model.name]
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        engine = ["--engine", "torch", "--device", "cpu", "--dtype", self.dtype, "--batch-size", "32"]
        without = ["--no-bettertransformer", "--no-compile", "--no-vector-disk-cache"]
        return [*server, *model, *listen, *engine, *without]

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {
            "OMP_NUM_THREADS": str(setup.threads),
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
        }


class InfinityBfloat16(Infinity):
    name = "infinity-bf16"
    dtype = "bfloat16"
    notes = ("As infinity, but in bfloat16, which torch multiplies in AMX where there is.",)
