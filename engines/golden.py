"""Checks a loaded engine against the bundle's golden cases: does it still answer as it did at export?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import GOLDEN, Golden, GoldenCase
from engines.batch import Batch, Chunks, Row
from engines.runner import Runner


def read_golden(bundle: Path) -> Golden:
    """Raises BundleError when the file is missing or damaged."""
    try:
        return msgspec.json.decode((bundle / GOLDEN).read_bytes(), type=Golden)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{bundle / GOLDEN} cannot be read ({error}); export the model again.") from None


def check(golden: Golden, runner: Runner, chunks: Chunks, slot: int = 0) -> None:
    """Run every case in cache row `slot`. Raises BundleError when logits are further off than allowed."""
    for number, case in enumerate(golden.cases):
        if len(case.prompt) > chunks.max_context:
            continue  # a context smaller than the bundle's was asked for
        found = logits_after(case.prompt, runner, chunks, slot)[case.ids]
        difference = float(np.abs(found - np.array(case.logits, np.float32)).max())
        if not difference <= golden.atol:  # a NaN is not less
            raise BundleError(_drifted(number, difference, golden.atol, case))


def logits_after(prompt: list[int], runner: Runner, chunks: Chunks, slot: int) -> NDArray[np.float32]:
    """The logits [vocab] after a prompt: all but its last token as chunks, the last as a decode step."""
    body, computed = prompt[:-1], 0
    while computed < len(body):
        past, fresh, size = chunks.row(body, computed)
        computed += fresh
        runner.run(Batch(slot, size, [Row(past, body[past:computed], fresh)]))
    output = runner.run(Batch(slot, 1, [Row(computed, prompt[-1:], 1)], logits=True))
    assert output.logits is not None
    logits: NDArray[np.float32] = output.logits[0]
    return logits


def _drifted(number: int, difference: float, atol: float, case: GoldenCase) -> str:
    return (
        f"The bundle drifted: golden case {number} ({len(case.prompt)} tokens) is off by {difference:.3g}, "
        f"{atol:.3g} is allowed; run `basert verify`, and export the model again on this machine."
    )
