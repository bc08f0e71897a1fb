"""Activation maxima of every linear layer over the shipped calibration texts."""

from __future__ import annotations

from pathlib import Path

from basert.progress import Show

CALIBRATION = "calibration.npz"


def calibrate(checkpoint: Path, slot_graph: Path, out: Path, progress: Show) -> Path:
    """Run the fp32 slot graph in folder `slot_graph` over export/texts/calibration*.txt; write out/CALIBRATION.

    `checkpoint` gives the tokenizer. The file maps each weight's name to the per-channel absolute maximum
    (float32 [in_features]) of what the layer multiplies it with.
    """
    raise NotImplementedError
