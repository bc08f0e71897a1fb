"""OpenVINO GenAI: its continuous batching pipeline, behind a front of ours, on an 8-bit export."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import basert
from basert.bench.peers import tools
from basert.bench.peers.peer import Model, Peer, Setup

SERVES = ("openvino-genai==2026.4.1", "openvino==2026.4.1", "tokenizers>=0.22", "aiohttp>=3.11", "numpy>=2")
EXPORTS = ("optimum-intel[openvino]==2.2.0",)


class OpenVino(Peer):
    name = "openvino"
    recipe = "2026.4.1-1"
    notes = (
        "ContinuousBatchingPipeline with prefix caching, weights in int8 from optimum-intel, in this process'"
        " default precisions (bf16 where the CPU has AMX, KV cache in u8).",
        "It brings no server of this kind for Python: a small front of ours hands its tokens on one by one.",
    )
    start_seconds = 180.0

    def install(self, room: Path) -> None:
        """With the torch that exported the bundle, in its version: no other is sure to be at hand."""
        torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
        tools.pip_install(room, torch, *SERVES, *EXPORTS)
        # wanted for image models, and built for another torch than a CPU's: transformers would stumble
        tools.run(room, tools.python(room), "-m", "pip", "uninstall", "--yes", "torchvision")

    def convert(self, room: Path, model: Model, into: Path) -> None:
        optimum = tools.python(room).parent / "optimum-cli"
        task = ("--task", "text-generation-with-past", "--weight-format", "int8")
        tools.run(into, optimum, "export", "openvino", "-m", model.checkpoint(), *task, into / "model")

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "openvino-genai", "openvino", "optimum-intel", "nncf")

    def command(self, setup: Setup, port: int) -> list[str]:
        front = [str(tools.python(setup.room)), "-m", "basert.bench.peers.fronts.openvino"]
        model = ["--model", str(setup.converted / "model"), "--name", setup.model.name, "--port", str(port)]
        properties = {"INFERENCE_NUM_THREADS": setup.threads}
        return [
            *front,
            *model,
            "--cache-gb",
            "2",
            "--batched-tokens",
            "512",
            "--properties",
            json.dumps(properties),
        ]

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {"PYTHONPATH": str(Path(basert.__file__).parents[1])}
