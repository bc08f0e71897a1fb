"""What makes a W8A8 Whisper of an fp32 one: calibration of both graphs, then their passes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from basert.progress import Show
from export.calibration import CALIBRATION, Fill, observe, read_calibration
from export.graph import GRAPH as DECODER_GRAPH
from export.graph import describe, read_decoder, save
from export.passes.anatomy import linears
from export.passes.attend import fuse_attention
from export.runner import Array
from export.speech.cross import hear_rounded, round_heard, scales_of
from export.speech.graph import GRAPH, OPENVINO, described, read_listener, save_listener
from export.speech.runner import HearingRunner, ListenerRunner
from export.speech.windows import Window, calibration_windows
from export.variants import w8a8

LISTENER, DECODER, CROSS = "listener", "decoder", "cross.npz"


@dataclass(frozen=True)
class _Heard:
    """A window as the two graphs are run with it, every position being looked at."""

    slot: int
    rows: int  # positions: frames, or tokens
    window: Window

    def __len__(self) -> int:
        return self.rows


def calibrate(checkpoint: Path, fp32: Path, out: Path, progress: Show, *, threads: int = 0) -> None:
    """What the layers of the two graphs in folder `fp32` are fed with over calibration windows, into `out`.

    CROSS: by the names of the listener's outputs, the largest absolute value of each channel, float32
    [heads, head_dim].
    """
    speech = read_listener(fp32).speech
    windows = calibration_windows(checkpoint, speech, read_decoder(fp32).max_context)
    cross = _calibrate_listener(windows, fp32, out / LISTENER, progress, threads)
    maxima = {
        name: np.max([np.abs(heard[name][0]).max(axis=1) for heard in cross], axis=0) for name in cross[0]
    }
    np.savez(out / CROSS, **maxima)
    _calibrate_decoder(windows, cross, fp32, out / DECODER, progress, threads)


def _calibrate_listener(
    windows: list[Window], fp32: Path, out: Path, progress: Show, threads: int
) -> list[dict[str, Array]]:
    """What it made of each window."""
    speech, cross = read_listener(fp32).speech, []

    def open_probed(graph: str) -> Fill[_Heard]:
        listener = ListenerRunner(fp32, threads=threads, graph=graph)
        return lambda heard, fetches: cross.append(
            listener.listen(heard.window.features(speech)[None], fetches)
        )

    heard = [_Heard(slot, speech.frames, window) for slot, window in enumerate(windows)]
    observe(fp32 / GRAPH, linears, open_probed, heard, out, progress)
    return cross


def _calibrate_decoder(
    windows: list[Window], cross: list[dict[str, Array]], fp32: Path, out: Path, progress: Show, threads: int
) -> None:
    longest = max(len(window.ids) for window in windows)

    def open_probed(graph: str) -> Fill[_Heard]:
        runner = HearingRunner(fp32, slots=len(windows), max_context=longest, threads=threads, graph=graph)
        for slot, heard in enumerate(cross):
            runner.hear(slot, heard)
        return lambda heard, fetches: runner.run(
            heard.slot, np.asarray([heard.window.ids]), [0], list(range(len(heard))), fetches
        )

    heard = [_Heard(slot, len(window.ids), window) for slot, window in enumerate(windows)]
    observe(fp32 / DECODER_GRAPH, linears, open_probed, heard, out, progress)


def build_w8a8(fp32: Path, calibration: Path, out: Path, progress: Show) -> None:
    """From the fp32 graphs in folder `fp32` and what `calibrate` left, write the W8A8 ones into `out`.

    Beside them an fp32 listener for OPENVINO, which answers what the same decoder reads.
    """
    speech = read_listener(fp32).speech
    with np.load(calibration / CROSS) as maxima:
        scales = scales_of(maxima)
    listener, plain = ir.load(fp32 / GRAPH), ir.load(fp32 / GRAPH)
    w8a8(listener, read_calibration(calibration / LISTENER / CALIBRATION), progress)
    fuse_attention(listener)
    for model, name in ((listener, GRAPH), (plain, OPENVINO)):
        round_heard(model, scales)
        save_listener(model, described(model, speech), out, name)
    decoder = ir.load(fp32 / DECODER_GRAPH)
    w8a8(decoder, read_calibration(calibration / DECODER / CALIBRATION), progress)
    hear_rounded(decoder, scales)
    save(decoder, describe(decoder, read_decoder(fp32)), out)
