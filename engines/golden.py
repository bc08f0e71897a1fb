"""Checks a loaded engine against the bundle's golden cases: does it still answer as it did at export?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import (
    ENCODER_GOLDEN,
    GOLDEN,
    SPEECH_GOLDEN,
    EncoderCase,
    EncoderGolden,
    Golden,
    GoldenCase,
    Speech,
    SpeechGolden,
)
from engines.batch import Batch, Chunks, Row
from engines.runner import Runner
from engines.sounds import draw

Kind = TypeVar("Kind")


def read_golden(bundle: Path) -> Golden:
    """Raises BundleError when the file is missing or damaged."""
    return _read(bundle / GOLDEN, Golden)


def read_encoder_golden(bundle: Path) -> EncoderGolden:
    """Raises BundleError when the file is missing or damaged."""
    return _read(bundle / ENCODER_GOLDEN, EncoderGolden)


def read_speech_golden(bundle: Path) -> SpeechGolden:
    """Raises BundleError when the file is missing or damaged."""
    return _read(bundle / SPEECH_GOLDEN, SpeechGolden)


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{path} cannot be read ({error}); export the model again.") from None


def check(golden: Golden, runner: Runner, chunks: Chunks, slot: int = 0) -> None:
    """Run every case in cache row `slot`. Raises BundleError when logits are further off than allowed."""
    for number, case in enumerate(golden.cases):
        _check_case(number, case, golden.atol, runner, chunks, slot)


def check_speech(
    golden: SpeechGolden, target: str, speech: Speech, runner: Runner, chunks: Chunks, slot: int = 0
) -> None:
    """As `check`, each case having heard its own sound. target: the listener's."""
    atol = _allowed(golden.atol, target)
    for number, case in enumerate(golden.cases):
        sound = draw(case.sound, speech.mels, 2 * speech.frames).tobytes()
        runner.run(Batch(slot, 0, [Row(0, [], 0)], sound=sound))
        _check_case(number, case, atol, runner, chunks, slot)


def _check_case(
    number: int, case: GoldenCase, atol: float, runner: Runner, chunks: Chunks, slot: int
) -> None:
    if len(case.prompt) <= chunks.max_context:  # else a context smaller than the bundle's was asked for
        found = logits_after(case.prompt, runner, chunks, slot)[case.ids]
        _compare(number, len(case.prompt), found, case.logits, atol)


def check_encoder(
    golden: EncoderGolden,
    target: str,
    encode: Callable[[EncoderCase], NDArray[np.float32]],
    max_tokens: int,
) -> None:
    """Have `encode` answer every case. Raises BundleError when numbers are further off than allowed."""
    atol = _allowed(golden.atol, target)
    for number, case in enumerate(golden.cases):
        if len(case.ids) <= max_tokens:
            _compare(number, len(case.ids), encode(case), case.values, atol)


def _allowed(atol: dict[str, float], target: str) -> float:
    if target not in atol:
        raise BundleError(f"Its golden cases do not say how far {target!r} may be off; export it again.")
    return atol[target]


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


def _compare(
    number: int, tokens: int, found: NDArray[np.float32], expected: list[float], atol: float
) -> None:
    difference = float(np.abs(found - np.array(expected, np.float32)).max())
    if not difference <= atol:  # a NaN is not less
        raise BundleError(
            f"The bundle drifted: golden case {number} ({tokens} tokens) is off by {difference:.3g}, "
            f"{atol:.3g} is allowed; run `basert verify`, and export the model again on this machine."
        )
