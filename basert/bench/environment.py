"""Where a measurement was taken: CPU, versions. Reads /proc and package metadata; imports no runtime."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from basert import __version__
from basert.bench.results import Machine

PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "falcon",
    "gunicorn",
    "tokenizers",
    "aiohttp",
    "numpy",
)
FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def machine() -> Machine:
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        cpu=fields.get("model name", platform.machine()),
        cpus=len(os.sched_getaffinity(0)),
        features=[name for name in FEATURES if name in flags],
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={"basert": __version__} | {name: found for name in PACKAGES if (found := _version(name))},
    )


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
