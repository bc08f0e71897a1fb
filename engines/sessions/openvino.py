"""Graphs on OpenVINO, through ONNX Runtime's plugin provider: the extra basert[openvino].

It takes the whole graph or none of it: what it would leave to another provider is a start failure. On CPUs
with bf16 products it computes with them. Shapes need not be known when it compiles: one session has the
speed of one compiled for its shape, and one copy of the weights. What it compiled is kept as an EPContext
graph, with which it starts in half the time (MiniLM: 0.10 s of CPU instead of 0.18).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort

from basert.cpus import usable_cores
from basert.errors import BundleError
from engines.sessions import Arrays, SessionOptions
from engines.sessions.cpu import CpuSession, session_options

CONTEXT = "encoder.onnx"  # and its weights, under a name that the provider gives
PACKAGE = "onnxruntime_ep_openvino"
CONFIG = {
    "session.disable_cpu_ep_fallback": "1",
    "session.record_ep_graph_assignment_info": "1",
    "ep.context_embed_mode": "0",  # weights in a file of their own: embedded, they are parsed at each start
}

_log = logging.getLogger(__name__)


def why_not() -> str:
    """Why nothing can be run with it on this host, with the mend; "" if it can."""
    if importlib.util.find_spec(PACKAGE) is None:
        return "it wants OpenVINO's provider: pip install 'basert[openvino]'"
    try:
        return "" if _devices() else "OpenVINO's provider finds no CPU that it can use"
    except Exception as error:  # the loader's or onnxruntime's own
        return f"OpenVINO's provider does not load ({error})"


class OpenVinoSession(CpuSession):
    """Where a graph that attends by plain products is run in bf16."""

    wanted = "OpenVINOExecutionProvider"

    def _open(self, path: Path, options: SessionOptions) -> ort.InferenceSession:
        if options.compiled is None:
            return self._start(path, options)
        facts = {"kind": "EPContext", "plugin": metadata.version(PACKAGE)}
        if made := options.compiled.find(**facts):
            try:
                return self._start(made / CONTEXT, options)
            except Exception as error:  # onnxruntime's own
                _log.warning("%s cannot be used and is made anew: %s", made, error)
        with options.compiled.adding(**facts) as folder:
            if folder is not None:
                try:
                    return self._start(path, options, folder)
                except Exception as error:  # for want of room, say
                    _log.warning("%s: what is compiled cannot be kept (%s)", path, error)
        return self._start(path, options)

    def _start(self, path: Path, options: SessionOptions, keep: Path | None = None) -> ort.InferenceSession:
        """keep: the folder where the compiled graph is to be left, besides."""
        out = session_options(options)
        kept = {"ep.context_enable": "1", "ep.context_file_path": str(keep / CONTEXT)} if keep else {}
        for key, value in (CONFIG | kept).items():
            out.add_session_config_entry(key, value)
        out.add_provider_for_devices(_devices(), {"load_config": json.dumps({"CPU": _settings(options)})})
        session = ort.InferenceSession(str(path), out)
        _check_assignment(session, self.wanted)
        return session

    def bind(self, _row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        """Inputs are bound anew for each run (7 us): the provider reads those of a binding only once."""
        binding = self._session.io_binding()
        _bind(binding.bind_output, fetches)

        def run(_kept: object = fetches) -> None:
            _bind(binding.bind_input, feeds)
            self._session.run_with_iobinding(binding)

        return run


def _check_assignment(session: ort.InferenceSession, wanted: str) -> None:
    """Raises BundleError that counts the nodes of other providers."""
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    told = ", ".join(f"{count} nodes on {name}" for name, count in sorted(nodes.items()))
    if set(nodes) != {wanted}:
        raise BundleError(f"a part of it would run on another provider ({told})")
    _log.debug("%s", told)


def _bind(bind: Callable[..., None], arrays: Arrays) -> None:
    for name, array in arrays.items():
        bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


@functools.cache
def _devices() -> list[Any]:
    """The CPU, as the plugin offers it; registering it is done once a process."""
    import onnxruntime_ep_openvino as plugin

    ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == plugin.get_ep_name()]
    return [device for device in devices if device.ep_metadata.get("ov_device") == "CPU"]


def _settings(options: SessionOptions) -> dict[str, str]:
    """OpenVINO's own. Without bf16 products in the CPU it computes in float32."""
    [device] = _devices()
    quick = "BF16" in device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if quick else "f32",
        "INFERENCE_NUM_THREADS": str(options.threads or usable_cores()),
        "PERFORMANCE_HINT": "LATENCY",
    }
