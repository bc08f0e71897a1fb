"""What an encoder's linear layers are fed with over the shipped calibration text, one text at a time."""

from __future__ import annotations

from pathlib import Path

from basert.progress import Show
from export.calibration import Fill, observe
from export.encoders.graph import GRAPH, read_encoder
from export.encoders.runner import EncoderRunner, Input
from export.encoders.texts import calibration_inputs
from export.passes.anatomy import token_linears

TOKENS_A_CHANNEL = 1
"""For products of channels: with 1.6 in MiniLM's widest layers they make held-out text lose less."""


def calibrate(checkpoint: Path, graph: Path, out: Path, progress: Show, *, threads: int = 0) -> Path:
    """Run the fp32 graph in folder `graph` over the calibration text; returns out / CALIBRATION."""
    inputs = calibration_inputs(checkpoint, read_encoder(graph).encoder)
    return calibrate_inputs(inputs, graph, out, progress, threads=threads)


def calibrate_inputs(
    inputs: list[Input], graph: Path, out: Path, progress: Show, *, threads: int = 0
) -> Path:
    """`calibrate` over inputs of one's own."""

    def open_probed(name: str) -> Fill[Input]:
        runner = EncoderRunner(graph, threads=threads, graph=name)
        return lambda one, fetches: runner.run(runner.feeds([one]), fetches)

    return observe(
        graph / GRAPH, token_linears, open_probed, inputs, out, progress, tokens_a_channel=TOKENS_A_CHANNEL
    )
