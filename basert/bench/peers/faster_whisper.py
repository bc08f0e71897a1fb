"""faster-whisper, behind a front of ours: what one would build oneself for speech on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basert.bench.peers import tools
from basert.bench.peers.encoders import checkout, front
from basert.bench.peers.peer import Peer, PeerFailed, Setup

VERSION = "1.2.1"
PACKAGES = (f"faster-whisper=={VERSION}", "ctranslate2==4.8.5", "aiohttp>=3.11")
BATCH = 8  # windows of a recording at a time
WEIGHTS = "model.bin"
GREEDY = "One beam and its VAD filter, as all that are compared; its default of five beams would take longer."


class FasterWhisper(Peer):
    """One request at a time on all threads, its windows in batches; others differ in one thing each."""

    name = "faster-whisper"
    home = "faster-whisper"
    family = "speech"
    recipe = f"{VERSION}-1"
    dtype: ClassVar[str] = "int8"
    batch: ClassVar[int] = BATCH
    alone: ClassVar[bool] = True  # one worker with all threads; else as many workers as threads
    notes: ClassVar[tuple[str, ...]] = (
        f"Its BatchedInferencePipeline ({BATCH} windows) behind a small front of ours, weights and"
        " activations in 8 bits, one request at a time on all threads: best for one client.",
        GREEDY,
        "Fewer threads for numpy and OpenMP, which it uses besides, were no cheaper.",
    )

    def install(self, room: Path) -> None:
        tools.pip_install(room, *PACKAGES)

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "faster-whisper", "ctranslate2", "onnxruntime")

    def command(self, setup: Setup, port: int) -> list[str]:
        workers = 1 if self.alone else setup.threads
        flags = {
            "--model": _folder(setup),
            "--name": setup.model.name,
            "--port": port,
            "--dtype": self.dtype,
            "--threads": setup.threads // workers,
            "--workers": workers,
            "--batch": self.batch,
        }
        return front(setup.room, "faster_whisper", *(str(part) for flag in flags.items() for part in flag))

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {"PYTHONPATH": checkout(), "OMP_NUM_THREADS": str(setup.threads), "HF_HUB_OFFLINE": "1"}


class FasterWhisperWorkers(FasterWhisper):
    name = "faster-whisper-workers"
    alone = False
    notes = ("As faster-whisper, but with as many workers as threads, each with one: best for many clients.",)


class FasterWhisperPlain(FasterWhisperWorkers):
    name = "faster-whisper-plain"
    batch = 0
    notes = (
        "As faster-whisper-workers, but a recording's windows one after the other, as Whisper does it"
        " (without the text before as a prompt): WhisperModel.transcribe, which is what most use.",
    )


class FasterWhisperFloat32(FasterWhisper):
    name = "faster-whisper-f32"
    dtype = "float32"
    notes = ("As faster-whisper, but in float32.",)


class FasterWhisperFloat32Workers(FasterWhisperWorkers):
    name = "faster-whisper-f32-workers"
    dtype = "float32"
    notes = ("As faster-whisper-workers, but in float32.",)


def _folder(setup: Setup) -> Path:
    """CTranslate2's, which is what the bundle was exported from. Raises PeerFailed where it was not."""
    path = setup.model.source()
    if not (path / WEIGHTS).is_file():
        raise PeerFailed("it serves CTranslate2's files, and this bundle was not exported from such.")
    return path
