"""Libraries that encode texts, behind fronts of ours, from one environment: what one would build oneself."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import basert
from basert.bench.peers import tools
from basert.bench.peers.peer import Model, Peer, Setup
from basert.manifest import Encoder, read_manifest

TORCH = "torch==2.13.0"
PACKAGES = (
    TORCH,
    "sentence-transformers==6.2.0",
    "transformers==5.24.0",
    "fastembed==0.9.1",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "aiohttp>=3.11",
)
FRONTS = "basert.bench.peers.fronts"
BEHIND = "Behind a small front of ours, which calls it for one request after the other."


def front(room: Path, name: str, *flags: str) -> list[str]:
    """The command of a front; PYTHONPATH has to name `checkout()`."""
    return [str(tools.python(room)), "-m", f"{FRONTS}.{name}", *flags]


def checkout() -> str:
    return str(Path(basert.__file__).parents[1])


class Library(Peer):
    """All of them share an environment, and the ONNX graph that is made of the checkpoint."""

    home = "encoders"
    family = "encoder"
    recipe = "1"
    start_seconds = 180.0

    def install(self, room: Path) -> None:
        """With the onnxruntime that basert has here: what is compared is not its versions."""
        tools.pip_install(room, *PACKAGES, f"onnxruntime=={importlib.metadata.version('onnxruntime')}")

    def convert(self, room: Path, model: Model, into: Path) -> None:
        flags = [str(model.source()), str(into)]
        tools.run(into, "env", f"PYTHONPATH={checkout()}", *front(room, "make_onnx", *flags))

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {
            "PYTHONPATH": checkout(),
            "OMP_NUM_THREADS": str(setup.threads),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
        }


class SentenceTransformers(Library):
    name = "sentence-transformers"
    dtype: ClassVar[str] = "float32"
    notes: ClassVar[tuple[str, ...]] = (
        f"{BEHIND} torch on the CPU in float32, sdpa attention, batches of 8 sorted by length (32 were"
        " slower where a request has 32 texts of all lengths). Its vectors are what all others are compared"
        " with.",
    )

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "sentence-transformers", "transformers", "torch")

    def command(self, setup: Setup, port: int) -> list[str]:
        listen = ("--name", setup.model.name, "--port", str(port))
        return front(setup.room, "sentence_transformers", *self._model(setup.model, setup.threads), *listen)

    def write(self, room: Path, model: Model, texts: Path, into: Path) -> None:
        """Vectors of a JSON list of texts, float32 [texts, width], without a server. Raises PeerFailed."""
        threads = len(os.sched_getaffinity(0))
        flags = ("--texts", str(texts), "--write", str(into))
        command = front(room, "sentence_transformers", *self._model(model, threads), *flags)
        tools.run(into.parent, "env", f"PYTHONPATH={checkout()}", f"OMP_NUM_THREADS={threads}", *command)

    def _model(self, model: Model, threads: int) -> list[str]:
        return ["--model", str(model.source()), "--threads", str(threads), "--dtype", self.dtype]


class SentenceTransformersBfloat16(SentenceTransformers):
    name = "sentence-transformers-bf16"
    dtype = "bfloat16"
    notes = (
        f"{BEHIND} As sentence-transformers, but in bfloat16, which torch multiplies in AMX where it is.",
    )


class FastEmbed(Library):
    name = "fastembed"
    notes = (
        f"{BEHIND} The same weights as an ONNX graph in float32 from this disk, batches of 8 (32 were slower)"
        " in the order that the texts come in: it does not sort them.",
    )

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "fastembed", "onnxruntime")

    def command(self, setup: Setup, port: int) -> list[str]:
        width = ("--width", str(_encoder(setup.model).width))
        return front(setup.room, "fastembed", *_graph(setup, port), *width)


class OnnxRuntime(Library):
    name = "onnxruntime"
    notes = (
        f"{BEHIND} A session as it comes on a float32 graph of any shape (opset 23, its Attention operator;"
        " the same without it, and with the runtime's own transformer fusions, were no faster), texts sorted"
        " by length, batches of 8 (32 were slower), padded to their longest.",
    )

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "onnxruntime", "tokenizers")

    def command(self, setup: Setup, port: int) -> list[str]:
        longest = ("--longest", str(_encoder(setup.model).max_tokens))
        return front(setup.room, "onnx", *_graph(setup, port), *longest)


def _graph(setup: Setup, port: int) -> list[str]:
    model = ["--model", str(setup.converted), "--threads", str(setup.threads)]
    return [*model, "--name", setup.model.name, "--port", str(port)]


def _encoder(model: Model) -> Encoder:
    found = read_manifest(model.bundle).encoder
    assert found is not None, "encoders' peers get encoders"
    return found
