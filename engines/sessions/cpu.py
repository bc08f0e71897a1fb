"""Graphs on ONNX Runtime's CPU provider, with the KV cache updated in place through IO binding."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from basert.cpus import usable_cores
from basert.errors import BundleError
from basert.manifest import KVCache
from engines.sessions import Arrays, SessionOptions
from engines.sessions.instructions import products_saturate

PROVIDER = "CPUExecutionProvider"
CONFIG = {
    "session.set_denormal_as_zero": "1",
    # Threads wait actively for the next operator, which comes within microseconds, and within a step only:
    # an idle engine takes no CPU, and beside other load they do not hold each other up (by half, measured).
    "session.intra_op.spin_duration_us": "50",
    "session.force_spinning_stop": "1",
}


class CpuSession:
    """Cache memory is committed by the kernel as tokens are first written to it."""

    wanted = PROVIDER

    def __init__(self, path: Path, kv: KVCache, options: SessionOptions) -> None:
        try:
            self._session = self._open(path, options)
        except Exception as error:  # onnxruntime's own exceptions have no common base but this one
            raise BundleError(f"{path} does not load: {error}; check it with `basert verify`.") from None
        self.provider = self._session.get_providers()[0]
        if self.provider != self.wanted:
            raise BundleError(f"{path} was to run on {self.wanted} and got {self.provider}.")
        self._profiled = bool(options.profile)
        self._cache = _cache(kv, options)

    def _open(self, path: Path, options: SessionOptions) -> ort.InferenceSession:
        return ort.InferenceSession(str(path), session_options(options), providers=[self.wanted])

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in fetches.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, cache in self._cache.items():
            rows = cache[row : row + len(feeds["input_ids"])]
            binding.bind_input(f"past_key_values.{name}", "cpu", 0, rows.dtype, rows.shape, rows.ctypes.data)
            binding.bind_output(f"present.{name}", "cpu", 0, rows.dtype, rows.shape, rows.ctypes.data)
        kept = feeds, fetches  # the binding holds their addresses only

        def run(_kept: object = kept) -> None:
            self._session.run_with_iobinding(binding)

        return run

    def beside(self, path: Path, options: SessionOptions) -> CpuSession:
        other = type(self)(path, KVCache("float32", [], []), options)
        other._cache = self._cache
        return other

    def move(self, source: int, target: int, length: int) -> None:
        for cache in self._cache.values():
            cache[target, :, :length] = cache[source, :, :length]

    def end_profile(self) -> Path:
        if not self._profiled:
            raise BundleError("The runtime keeps no profile; start the engine with one.")
        return Path(self._session.end_profiling())

    def cached(self, row: int, length: int) -> Arrays:
        return {name: cache[row, :, :length] for name, cache in self._cache.items()}


def _cache(kv: KVCache, options: SessionOptions) -> dict[str, NDArray[Any]]:
    """By "layer.key" and "layer.value": [slots, kv_heads, max_context, head_dim]."""
    try:
        return {
            f"{layer}.{kind}": _lazy_zeros((options.slots, heads, options.max_context, size), kv.dtype)
            for layer, (heads, size) in enumerate(zip(kv.kv_heads, kv.head_dim, strict=True))
            for kind in ("key", "value")
        }
    except (OSError, MemoryError):
        raise BundleError(
            f"This machine has no room for {options.slots} slots of {options.max_context} tokens; "
            "ask for fewer slots or a smaller context."
        ) from None


def _lazy_zeros(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Zeros in small pages: with huge ones, a first token in each row would commit the whole cache."""
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def session_options(options: SessionOptions) -> ort.SessionOptions:
    out = ort.SessionOptions()
    out.intra_op_num_threads = options.threads or usable_cores()
    out.inter_op_num_threads = 1
    out.log_severity_level = 3  # errors; what they say is raised as well
    if products_saturate():  # then W8A8 is exact only with it; elsewhere it would cost a third of the speed
        out.add_session_config_entry("session.x64quantprecision", "1")
    if options.profile:
        out.enable_profiling = True
        out.profile_file_prefix = options.profile
    for key, value in CONFIG.items():
        out.add_session_config_entry(key, value)
    out.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
    return out
