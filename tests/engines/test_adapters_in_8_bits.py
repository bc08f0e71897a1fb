"""SmolLM2 in W8A8 with an int8 cache and trained adapters: a request's bits, drafted, cut, in company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from basert.messages import Sampling
from tests.conftest import export_adapter
from tests.engines.harness import SteppedEngine

NEW = 40
PROMPT = [int(token) for token in np.random.default_rng(1).integers(100, 40_000, 30)] * 5  # it repeats itself


@pytest.fixture(scope="module")
def adapters(smollm2_w8a8: Path) -> dict[str, Path]:
    return {
        bundle.name: bundle for bundle in (export_adapter(name, smollm2_w8a8) for name in ("pirate", "robot"))
    }


def engine_of(bundle: Path, adapters: dict[str, Path], **config: Any) -> SteppedEngine:
    return SteppedEngine(bundle, slots=8, max_context=512, adapters=tuple(adapters.values()), **config)


@pytest.mark.timeout(1800)  # the first time adapters are trained
@pytest.mark.parametrize("which", ["", "pirate-smollm2-w8a8", "robot-smollm2-w8a8"])
def test_a_request_gets_the_same_bits_drafted_or_not_alone_or_among_others(
    smollm2_w8a8: Path, adapters: dict[str, Path], which: str
) -> None:
    ask: dict[str, Any] = {"ignore_eos": True, "logprobs": 3, "adapter": which}
    plain = engine_of(smollm2_w8a8, adapters if which else {}, speculation=False)
    expected = plain.ask(PROMPT, NEW, **ask)
    plain.finish()
    drafting = engine_of(smollm2_w8a8, adapters)
    drafted = drafting.ask(PROMPT, NEW, **ask)
    drafting.finish()
    assert drafting.stats().drafted_tokens > 0
    crowded = engine_of(smollm2_w8a8, adapters)
    for length, other in ((9, ""), (70, "pirate-smollm2-w8a8"), (130, "robot-smollm2-w8a8"), (40, "")):
        crowded.ask(PROMPT[:length][::-1], 3 * NEW, Sampling(seed=length), ignore_eos=True, adapter=other)
    crowded.step(6)
    among = crowded.ask(PROMPT, NEW, **ask)
    crowded.finish()
    for engine, number in ((drafting, drafted), (crowded, among)):
        assert engine.tokens(number) == plain.tokens(expected)
        assert engine.logprobs(number) == plain.logprobs(expected)
