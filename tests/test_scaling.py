"""The roofline model: its limits, and that measured steps can be laid beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from basert.bench.scaling import CORES, GPU, MODELS, SMOLLM2, cost, main
from basert.profile import Phase, Profile


def test_a_single_row_reads_the_weights() -> None:
    one = cost(SMOLLM2, CORES, rows=1, context=1)
    assert one.bound == "reading weights"
    assert one.step == pytest.approx(134.5e6 / 27e9 + 1020 * 1.4e-6, rel=0.01)


def test_long_contexts_attend_and_big_batches_multiply() -> None:
    assert cost(SMOLLM2, CORES, rows=32, context=4096).bound == "attending"
    assert cost(MODELS[-1], CORES, rows=128, context=1).bound == "multiplying"


def test_a_token_gets_cheaper_with_rows_and_a_step_dearer() -> None:
    for model in MODELS:
        for machine in (CORES, GPU):
            steps = [cost(model, machine, rows, 128).step for rows in (1, 8, 32, 128)]
            assert steps == sorted(steps)
            tokens = [step / rows for step, rows in zip(steps, (1, 8, 32, 128), strict=True)]
            assert tokens == sorted(tokens, reverse=True)


def test_chunks_read_the_weights_once() -> None:
    chunk = cost(SMOLLM2, CORES, rows=1, context=128, chunk=128)
    steps = 128 * cost(SMOLLM2, CORES, rows=1, context=128).step
    assert chunk.step < steps / 10


def test_measured_steps_are_laid_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phase = Phase("decode", 8, 1, 128, 0.020, 0.001, 0.002, [])
    file = tmp_path / "profile.json"
    file.write_bytes(msgspec.json.encode(Profile("CPUExecutionProvider", 2, [phase])))
    main([str(file)])
    out = capsys.readouterr().out
    predicted = 1e3 * cost(SMOLLM2, CORES, 8, 128).step
    assert "decode 8 x 1 behind 128" in out
    assert f"{predicted:.1f}" in out
    assert f"{19 / predicted:.2f}" in out
