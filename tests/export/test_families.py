"""Each proven family: transformers' greedy tokens and logits, several prompts in a batch, past the window."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from basert.errors import ExportError
from export import graph as graph_module
from export.families import recipe_for
from export.graph import decoder_from_checkpoint
from export.positions import Positions, read_positions
from export.reference import Reference
from export.runner import SlotRunner
from tests.export.families import FAMILIES, MORE, VOCAB, write_family
from tests.export.stepping import greedy, prefill

LENGTHS = (3, 9, 21, 40)  # the window is 16
CHUNK = 7
STEPS = 16


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES | MORE:
        write_family(folder / family, family)
    return folder


def prompts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(3, VOCAB, length).tolist() for length in LENGTHS]


def compare(checkpoint: Path, graph: Path) -> tuple[list[list[int]], list[list[int]], float]:
    """Greedy ids of the slot graph and of transformers, and the largest difference of logits on the way."""
    reference = Reference(checkpoint, threads=1)
    runner = SlotRunner(graph, slots=len(LENGTHS), max_context=max(LENGTHS) + STEPS, threads=1)
    expected = [greedy(reference, prompt, STEPS) for prompt in prompts()]
    known = [reference.logits(p + answer) for p, answer in zip(prompts(), expected, strict=True)]
    rows = np.stack([prefill(runner, slot, prompt, CHUNK) for slot, prompt in enumerate(prompts())])
    ours: list[list[int]] = [[] for _ in LENGTHS]
    largest = 0.0
    for step in range(STEPS):
        for slot, length in enumerate(LENGTHS):
            difference = torch.from_numpy(rows[slot]) - known[slot][length - 1 + step]
            largest = max(largest, float(difference.abs().max()))
            ours[slot].append(int(rows[slot].argmax()))
        # the reference's tokens, so that one wrong choice does not make all later logits differ
        rows = runner.decode([answer[step] for answer in expected], [length + step for length in LENGTHS])
    return ours, expected, largest


@pytest.mark.parametrize("family", FAMILIES | MORE)
def test_greedy_tokens_and_logits_are_the_references(family: str, checkpoints: Path, tmp_path: Path) -> None:
    decoder_from_checkpoint(checkpoints / family, tmp_path)
    ours, expected, largest = compare(checkpoints / family, tmp_path)
    assert ours == expected
    assert largest < 1e-3


def without_windows(found: Positions) -> Positions:
    return replace(found, layers=[replace(layer, window=None) for layer in found.layers])


def one_more_in_the_window(found: Positions) -> Positions:
    return replace(
        found, layers=[replace(layer, window=layer.window and layer.window + 1) for layer in found.layers]
    )


def local_rope_everywhere(found: Positions) -> Positions:
    """What mobius does to Gemma 3."""
    return replace(found, tables=dict.fromkeys(found.tables, found.tables["sliding_attention"]))


@pytest.mark.parametrize(
    ("family", "spoil"),
    [
        ("mistral", without_windows),
        ("mistral", one_more_in_the_window),
        ("gemma3", one_more_in_the_window),
        ("gemma3", local_rope_everywhere),
    ],
)
def test_the_comparison_notices_wrong_positions(
    family: str, spoil: object, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "read_positions", lambda *given: spoil(read_positions(*given)))  # type: ignore[operator]
    decoder_from_checkpoint(checkpoints / family, tmp_path)
    assert compare(checkpoints / family, tmp_path)[2] > 0.1


def test_an_unknown_architecture_is_one_sentence_that_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "rwkv"}')
    with pytest.raises(
        ExportError,
        match=r"'rwkv' is not supported.*gemma3_text, glm4, llama, mistral, phi3, qwen2, qwen3, smollm3",
    ):
        recipe_for(tmp_path)


@pytest.mark.parametrize("model_type", ["bloom", "deepseek_v2", "dbrx"])
def test_an_architecture_with_other_positions_is_refused_in_a_sentence(
    model_type: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ExportError, match=r"basert cannot serve|basert does not know|transformers has no"):
        decoder_from_checkpoint(tmp_path, tmp_path / "out")


def test_a_folder_without_a_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no config\.json"):
        recipe_for(tmp_path)


def test_missing_weights_are_named(checkpoints: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoints / "qwen3" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    (tmp_path / "config.json").write_bytes((checkpoints / "qwen3" / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match=r"lacks weights that mobius-onnx wants.*layers\.1\.mlp\.up_proj"):
        decoder_from_checkpoint(tmp_path, tmp_path / "out")


def test_a_context_beyond_the_models_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="max context of 257 is not possible; this model allows 64 to 256"):
        decoder_from_checkpoint(checkpoints / "llama3", tmp_path, max_context=257)
