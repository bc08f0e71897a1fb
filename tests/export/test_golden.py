"""Golden cases come from the graph itself and notice a graph that answers differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.calibration import calibrate_ids
from export.golden import KEPT, golden_of
from export.graph import decoder_from_checkpoint
from export.runner import SlotRunner
from export.variants import VARIANTS, build_variant
from tests.export.families import VOCAB, write_family
from tests.export.stepping import prefill

PROMPTS = [[5, 17, 9], list(range(10, 40))]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    decoder_from_checkpoint(write_family(folder / "checkpoint", "llama3"), folder / "fp32")
    windows = [np.random.default_rng(seed).integers(3, VOCAB, 64).tolist() for seed in range(4)]
    seen = calibrate_ids(windows, folder / "fp32", folder, lambda *_: None, threads=1)
    for variant in ("w8a8", "int4"):
        build_variant(variant, folder / "fp32", seen, folder / variant, lambda *_: None)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_answers_its_own_golden_cases(variant: str, graphs: Path) -> None:
    golden = golden_of(PROMPTS, graphs / variant, variant)
    assert [case.prompt for case in golden.cases] == PROMPTS
    runner = SlotRunner(graphs / variant, slots=2, max_context=64, threads=2)
    for case in golden.cases:
        assert len(case.ids) == len(set(case.ids)) == len(case.logits)
        assert KEPT - 4 < len(case.ids) <= KEPT
        # cut in other chunks than golden cases are made with
        answer = prefill(runner, 0, case.prompt, 8)
        assert case.ids[0] == int(answer.argmax())
        assert np.abs(answer[case.ids] - case.logits).max() <= golden.atol


def test_another_model_does_not_pass(graphs: Path, tmp_path: Path) -> None:
    golden = golden_of(PROMPTS, graphs / "w8a8", "w8a8")
    decoder_from_checkpoint(
        write_family(tmp_path / "other", "llama3", rope_parameters=None), tmp_path / "graph"
    )
    answer = prefill(SlotRunner(tmp_path / "graph", slots=1, max_context=64), 0, PROMPTS[1], 64)
    case = golden.cases[1]
    assert np.abs(answer[case.ids] - case.logits).max() > golden.atol
