"""What makes a W8A8 Whisper of an fp32 one: calibration of both graphs, then their passes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from basert.progress import Show
from export.calibration import Run, observe, probing, read_calibration
from export.graph import GRAPH as DECODER_GRAPH
from export.graph import describe, read_decoder, save
from export.runner import Array
from export.speech.cross import round_cross
from export.speech.graph import GRAPH, described, read_listener, save_listener
from export.speech.runner import HearingRunner, ListenerRunner
from export.speech.windows import calibration_windows
from export.variants import w8a8

LISTENER, DECODER, CROSS = "listener.npz", "decoder.npz", "cross.npz"


def calibrate(checkpoint: Path, fp32: Path, out: Path, progress: Show, *, threads: int = 0) -> None:
    """What the layers of the two graphs in folder `fp32` are fed with over calibration windows, into `out`.

    CROSS: by the names of the listener's outputs, the largest absolute value of each channel.
    """
    speech = read_listener(fp32).speech
    windows = calibration_windows(checkpoint, speech, read_decoder(fp32).max_context)
    with probing(fp32 / GRAPH) as (probed, sites):
        listener = ListenerRunner(fp32, threads=threads, graph=probed)
    heard: list[dict[str, Array]] = []

    def listen(features: Array, fetches: dict[str, Array]) -> None:
        heard.append(listener.listen(features[None], fetches))

    runs = [Run(speech.frames, partial(listen, window.features(speech))) for window in windows]
    observe(sites, runs, out / LISTENER, progress)
    np.savez(out / CROSS, **_maxima(heard))  # type: ignore[arg-type]  # no allow_pickle among them
    with probing(fp32 / DECODER_GRAPH) as (probed, sites):
        longest = max(len(window.ids) for window in windows)
        runner = HearingRunner(fp32, slots=len(windows), max_context=longest, threads=threads, graph=probed)
    for slot, cross in enumerate(heard):
        runner.hear(slot, cross)
    runs = [
        Run(len(window.ids), partial(runner.score, slot, window.ids)) for slot, window in enumerate(windows)
    ]
    observe(sites, runs, out / DECODER, progress)


def build_w8a8(fp32: Path, calibration: Path, out: Path, progress: Show) -> None:
    """From the fp32 graphs in folder `fp32` and what `calibrate` left, write the W8A8 ones into `out`."""
    listener, decoder = ir.load(fp32 / GRAPH), ir.load(fp32 / DECODER_GRAPH)
    w8a8(listener, read_calibration(calibration / LISTENER), progress)
    w8a8(decoder, read_calibration(calibration / DECODER), progress)
    with np.load(calibration / CROSS) as maxima:
        round_cross(listener, decoder, maxima)
    save_listener(listener, described(listener, read_listener(fp32).speech), out)
    save(decoder, describe(decoder, read_decoder(fp32)), out)


def _maxima(heard: list[dict[str, Array]]) -> dict[str, Array]:
    """float32 [heads, head_dim] by name."""
    return {name: np.max([np.abs(cross[name][0]).max(axis=1) for cross in heard], axis=0) for name in heard[0]}
