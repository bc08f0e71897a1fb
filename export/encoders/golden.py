"""Golden cases of an encoder: what the fp32 graph answers, to be asked again whenever an engine loads it."""

from __future__ import annotations

from pathlib import Path

from basert.manifest import Encoder, EncoderCase, EncoderGolden
from export.encoders.runner import EncoderRunner, Input
from export.encoders.texts import evaluation_inputs

LENGTHS = (8, 40, 120)  # tokens of the cases' inputs, about
HEADROOM = {"fp32": 0.005, "w8a8": 1.0, "bf16": 0.5}
"""How far a number may lie off, by what the graph computes with, in standard deviations of all answers'.

Other CPUs add floats in another order; 8 bits round activations; OpenVINO computes with bfloat16 where the
CPU has it. A wrong kernel answers with numbers that lie several deviations off.
"""


def make_golden(checkpoint: Path, fp32: Path, variant: str, spread: float) -> EncoderGolden:
    """Cases from the graph in folder `fp32`. spread: standard deviation of the answers' numbers."""
    runner = EncoderRunner(fp32)
    chosen = _chosen(checkpoint, runner.graph.encoder)
    values = [runner.encode([one])[0] for one in chosen]
    cases = [
        EncoderCase(one.ids, [float(number) for number in answer], one.types if any(one.types) else [])
        for one, answer in zip(chosen, values, strict=True)
    ]
    atol = {"cpu": HEADROOM[variant] * spread, "openvino": HEADROOM["bf16"] * spread}
    return EncoderGolden(atol, cases)


def _chosen(checkpoint: Path, encoder: Encoder) -> list[Input]:
    """For each of LENGTHS the input that comes nearest."""
    inputs = [one for group in evaluation_inputs(checkpoint, encoder) for one in group]
    return [min(inputs, key=lambda one: abs(len(one.ids) - length)) for length in LENGTHS]
