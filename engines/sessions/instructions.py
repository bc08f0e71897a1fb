"""What this machine's CPU is good at. Reads /proc/cpuinfo, measures nothing."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Instructions with fast 8-bit integer products, best first: name, flag in /proc/cpuinfo.
FEATURES = (
    ("AMX", "amx_int8"),
    ("AVX-512 VNNI", "avx512_vnni"),
    ("AVX VNNI", "avx_vnni"),
    ("AVX2", "avx2"),
    ("ARM I8MM", "i8mm"),
    ("ARM dot products", "asimddp"),
)
EXACT = frozenset({"AMX", "AVX-512 VNNI", "AVX VNNI"})


def integer_products(cpuinfo: Path = CPUINFO) -> str | None:
    """The best instruction set for 8-bit integer products here; None when there is none that is known."""
    flags = _flags(cpuinfo)
    found = [name for name, flag in FEATURES if flag in flags]
    if not found and platform.system() == "Darwin" and platform.machine() == "arm64":
        return "ARM dot products"  # no /proc there; every Apple chip has them
    return found[0] if found else None


def has_avx512(cpuinfo: Path = CPUINFO) -> bool:
    """Whether NumPy finds the AVX-512 subset here for which it has vector code (that of Skylake servers)."""
    return _flags(cpuinfo) >= {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def products_saturate() -> bool:
    """Whether unsigned times signed 8-bit products, added in pairs of 16 bits, may overflow here.

    So they do on x86-64 before VNNI (vpmaddubsw), unless the runtime makes both sides unsigned.
    """
    return platform.machine() in ("x86_64", "AMD64") and integer_products() not in EXACT


def _flags(cpuinfo: Path) -> set[str]:
    flags: set[str] = set()
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
    return flags
