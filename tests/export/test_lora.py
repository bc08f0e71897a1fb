"""Adapters of all families, through all that an export folds into layers: transformers' and peft's logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.torch
import torch

from basert.errors import BasertError
from basert.manifest import MANIFEST, Lora
from export.graph import decoder_from_checkpoint, describe, load, save
from export.lora.factors import factors_of
from export.lora.graph import LoraRunner, build_lora_graph
from export.lora.modules import find_modules
from export.lora.peft_folder import read_peft
from export.lora.pipeline import AdapterRequest, PeftReference, run
from export.passes.anatomy import linears
from export.passes.cache import round_cache
from export.passes.folds import FOLDS, read_folds
from export.passes.lora import UNIT
from export.passes.quantise import quantise
from export.passes.rotate import rotate
from export.passes.smooth import for_rounded_weights, smooth
from export.reference import Reference
from export.runner import SlotRunner
from tests.adapters import write_random_adapter
from tests.export.conftest import Run
from tests.export.families import FAMILIES, MORE, VOCAB, write_family

IDS = np.random.default_rng(5).integers(3, VOCAB, 40).tolist()
DECODED = 4
RANK = 11
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """family -> (checkpoint, adapter)"""
    folder = tmp_path_factory.mktemp("families")

    def made(family: str) -> tuple[Path, Path]:
        checkpoint, adapter = folder / family, folder / f"{family}-adapter"
        if not checkpoint.is_dir():
            write_family(checkpoint, family)
            write_random_adapter(checkpoint, adapter, 3, r=RANK, target_modules="all-linear")
        return checkpoint, adapter

    return made


def as_it_is(_model: ir.Model, _maxima: dict[str, Array]) -> None:
    """fp32's passes: none."""


def turned(model: ir.Model, _maxima: dict[str, Array]) -> None:
    rotate(model)
    draw = np.random.default_rng(1)
    squares = {linear.name: draw.uniform(0.1, 9, linear.matrix().shape[0]) for linear in linears(model)}
    smooth(model, squares, for_rounded_weights)


def rounded(model: ir.Model, maxima: dict[str, Array]) -> None:
    turned(model, maxima)
    quantise(model, lambda *_: None)
    round_cache(model, maxima)


def built(checkpoint: Path, folder: Path, passes: Callable[[ir.Model, dict[str, Array]], None]) -> Lora:
    """The graph with its passes in folder / "passed", the one for adapters in folder / "lora"."""
    plain, passed, out = (folder / name for name in ("plain", "passed", "lora"))
    decoder_from_checkpoint(checkpoint, plain)
    runner = SlotRunner(plain, slots=1, max_context=len(IDS), threads=1)
    runner.chunk(0, IDS, 0)
    cached = runner.cached(0, len(IDS))
    layers = find_modules(checkpoint, plain)
    model, decoder = load(plain)
    passes(model, {name: np.abs(array).max(axis=1) * 2 for name, array in cached.items()})
    save(model, describe(model, decoder), passed)
    out.mkdir()
    lora = build_lora_graph(passed, layers, out).manifest(FOLDS)
    assert lora is not None
    return lora


def logits(runner: SlotRunner) -> Array:
    """Of all IDS, the last ones decoded in two rows."""
    settled = len(IDS) - DECODED
    rows: list[Array] = [runner.chunk(slot, IDS[:settled], 0) for slot in (0, 1)][:1]
    rows += [runner.decode([IDS[at]] * 2, [at] * 2)[1:] for at in range(settled, len(IDS))]
    return np.concatenate(rows)


def off(runner: SlotRunner, reference: Reference) -> float:
    """The largest difference of any logit, in standard deviations of all of them."""
    expected = reference.logits(IDS).numpy()
    return float(np.abs(logits(runner) - expected).max() / expected.std())


def spread(runner: SlotRunner, reference: Reference) -> float:
    """The root of the mean square of all differences, in the same unit."""
    expected = reference.logits(IDS).numpy()
    return float(np.sqrt(np.square(logits(runner) - expected).mean()) / expected.std())


def adapted(folder: Path, lora: Lora, adapter: Path) -> LoraRunner:
    factors = factors_of(read_peft(adapter), "base", lora, read_folds(folder / "lora" / FOLDS))
    return LoraRunner(folder / "lora", lora.layers, factors, slots=2, max_context=len(IDS))


@pytest.mark.parametrize("passes", [as_it_is, turned])
@pytest.mark.parametrize("family", FAMILIES | MORE)
def test_an_adapter_of_all_layers_is_peft_s(
    family: str,
    passes: Callable[[ir.Model, dict[str, Array]], None],
    checkpoints: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    checkpoint, adapter = checkpoints(family)
    lora = built(checkpoint, tmp_path, passes)
    found = adapted(tmp_path, lora, adapter)
    assert off(found, Reference(checkpoint, threads=1)) > 0.5  # it changes much
    assert off(found, PeftReference(checkpoint, adapter)) < 1e-3


@pytest.mark.parametrize("family", ["llama3", "qwen2", "qwen3", "gemma3"])
def test_in_8_bits_it_is_as_close_as_the_model_is(
    family: str, checkpoints: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    checkpoint, adapter = checkpoints(family)
    lora = built(checkpoint, tmp_path, rounded)
    plain = SlotRunner(tmp_path / "passed", slots=2, max_context=len(IDS), threads=1)
    allowed = 1.5 * spread(plain, Reference(checkpoint, threads=1))
    found = adapted(tmp_path, lora, adapter)
    assert spread(found, PeftReference(checkpoint, adapter)) < allowed
    assert spread(found, Reference(checkpoint, threads=1)) > 2 * allowed


def test_a_row_without_one_has_the_bits_that_it_had(
    checkpoints: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """And so has a row with one, whatever stands in the units beside its own."""
    checkpoint, adapter = checkpoints("llama3")
    lora = built(checkpoint, tmp_path, rounded)
    plain = SlotRunner(tmp_path / "passed", slots=2, max_context=len(IDS), threads=1)
    factors = factors_of(read_peft(adapter), "base", lora, read_folds(tmp_path / "lora" / FOLDS))
    noise = {name: np.concatenate([array[::-1], array, array]) for name, array in factors.items()}  # 2 of 6
    units = -(-RANK // UNIT)
    mixed = Mixed(tmp_path / "lora", lora.layers, noise, slots=2, max_context=len(IDS))
    alone = LoraRunner(tmp_path / "lora", lora.layers, factors, slots=2, max_context=len(IDS))
    mixed.taken = [slice(0, 0), slice(units, 2 * units)]
    ours, without, own = (decoded(runner) for runner in (mixed, plain, alone))
    assert np.array_equal(ours[0], without[0])
    assert np.array_equal(ours[1], own[1])
    assert not np.array_equal(own[1], without[1])


class Mixed(LoraRunner):
    """Each row takes its own stretch of units."""

    taken: list[slice]

    def feeds(self, ids: Array, past: Any, rows: list[int]) -> dict[str, Array]:
        feeds = super().feeds(ids, past, rows)
        stretches = self.taken if len(ids) == 2 else self.taken[self.slot :][:1]
        for parts in (1, 4):
            taken = feeds[f"lora_rows.{parts}"]
            taken[:] = 0
            for row, units in enumerate(stretches):
                taken[units.start * parts : units.stop * parts, row] = 1
        return feeds

    slot = 0

    def chunk(self, slot: int, *how: Any, **more: Any) -> Any:
        self.slot = slot
        return super().chunk(slot, *how, **more)


def decoded(runner: SlotRunner) -> Array:
    """A step of two rows, each behind a chunk of its own."""
    for slot in (0, 1):
        runner.chunk(slot, IDS[:30], 0)
    return runner.decode(IDS[30:32], [30, 30])


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "of the kind IA3; basert takes LORA"),
    ({"use_dora": True}, "DoRA"),
    ({"bias": "all"}, "trained biases"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"r": 4}, "says rank 4 for model.layers.0"),
    ({"r": None}, "names no rank r"),
]


@pytest.mark.parametrize(("change", "told"), CONFIGS)
def test_what_cannot_be_applied_is_refused_by_name(
    change: dict[str, Any], told: str, tiny_llama: tuple[Path, Path], home: Path
) -> None:
    folder = write_random_adapter(tiny_llama[1], home / "peft", 1, r=8, target_modules=["q_proj"])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    refused(folder, tiny_llama[0], told)


def grown(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([tensor, tensor], 1) if "lora_A" in name else tensor
        for name, tensor in tensors.items()
    }


def moved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("layers.1", "layers.30"): tensor for name, tensor in tensors.items()}


def heads(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("model.layers.0.self_attn.q_proj", "lm_head"): t for name, t in tensors.items()}


def halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}


def magnitudes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"base_model.model.model.norm.lora_magnitude_vector": torch.ones(3)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (grown, "was trained on another model, where model.layers.0.self_attn.q_proj is 128 x 64"),
        (moved, "changes model.layers.30.self_attn.q_proj, which is no layer of"),
        (heads, "changes lm_head, and basert's adapters change neither head nor embedding"),
        (halved, "half of a change"),
        (magnitudes, "changes model.norm.lora_magnitude_vector, which is no plain low-rank change"),
        (lambda _: {}, "holds no weights"),
    ],
)
def test_weights_of_another_model_or_kind_are_refused(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    told: str,
    tiny_llama: tuple[Path, Path],
    home: Path,
) -> None:
    folder = write_random_adapter(tiny_llama[1], home / "peft", 1, r=8, target_modules=["q_proj"])
    path = folder / "adapter_model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path)
    refused(folder, tiny_llama[0], told)


def test_files_that_are_missing_or_damaged_are_refused(tiny_llama: tuple[Path, Path], home: Path) -> None:
    refused(home / "nothing", tiny_llama[0], "has no adapter_config.json")
    folder = write_random_adapter(tiny_llama[1], home / "peft", 1, r=8, target_modules=["q_proj"])
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, tiny_llama[0], "is damaged")
    path.rename(folder / "adapter_model.bin")
    refused(folder, tiny_llama[0], "save the adapter as safetensors")


def refused(folder: Path, base: Path, told: str) -> None:
    with pytest.raises(BasertError) as caught:
        run(AdapterRequest(str(folder), str(base)))
    assert told in str(caught.value)
    assert not list(base.parent.glob(f".{folder.name}*"))


def test_export_lora_says_where_what_how_close_and_what_next(
    home: Path, tiny_llama: tuple[Path, Path], basert: Run
) -> None:
    folder = write_random_adapter(tiny_llama[1], home / "zebra", 1, r=8, target_modules=["q_proj", "up_proj"])
    done = basert("export-lora", str(folder), "--base", str(tiny_llama[0]))
    assert done.returncode == 0, done.stderr
    adapter, changes, parity, following = done.stdout.splitlines()
    assert adapter.startswith(f"adapter  {home / 'store' / 'zebra'} (")
    assert changes == "changes  q_proj, up_proj (rank 8, alpha / r)"
    assert "same best token 100.0%" in parity
    assert following == "next     basert serve tiny-llama --lora zebra"
    assert "adapter of tiny-llama" in basert("list").stdout
    assert "q_proj, up_proj" in basert("inspect", "zebra").stdout
    assert json.loads(basert("inspect", "zebra", "--json").stdout)["rank"] == 8
    assert "zebra is as it was exported for tiny-llama" in basert("verify", "zebra").stdout
    again = basert("export-lora", str(folder), "--base", str(tiny_llama[0]))
    assert again.returncode == 0, again.stderr
    other = write_random_adapter(tiny_llama[1], home / "more" / "zebra", 2, r=8, target_modules=["q_proj"])
    taken = basert("export-lora", str(other), "--base", str(tiny_llama[0]))
    assert "from another folder" in taken.stderr
    assert basert("remove", "zebra", "--yes").returncode == 0
    assert not (home / "store" / "zebra").exists()


def test_a_base_without_a_graph_for_adapters(home: Path, tiny_llama: tuple[Path, Path]) -> None:
    folder = write_random_adapter(tiny_llama[1], home / "peft", 1, r=8, target_modules=["q_proj"])
    old = home / "old"
    old.mkdir()
    told = json.loads((tiny_llama[0] / MANIFEST).read_text())
    told.pop("lora")
    (old / MANIFEST).write_text(json.dumps(told))
    refused(folder, old, "was exported without a graph for adapters; export it again")
