"""Checkpoints that cannot be exported: each is refused before anything long, in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from basert.errors import ExportError
from basert.manifest import CHAT_TEMPLATE, TOKENIZER
from export.fetched import folder_hash
from export.prepare import prepare, weight_bytes
from tests.export.small import write_gguf


@pytest.fixture
def checkpoint(tmp_path: Path, small_checkpoint: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def refused(source: Path, out: Path, *words: str) -> None:
    with pytest.raises(ExportError) as caught:
        prepare(source, out)
    for word in words:
        assert word in caught.value.message
    assert "\n" not in caught.value.message


def test_weights_take_no_room(checkpoint: Path, out: Path) -> None:
    prepare(checkpoint, out)
    assert (out / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert not (out / TOKENIZER).samefile(checkpoint / TOKENIZER)
    assert weight_bytes(out) < (checkpoint / "model.safetensors").stat().st_size


def test_truncated_weights(checkpoint: Path, out: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(checkpoint, out, "model.safetensors is truncated", "fetch it again")


def test_damaged_weights(checkpoint: Path, out: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"\xff" * 100)
    refused(checkpoint, out, "model.safetensors", "damaged")


def test_missing_shard(checkpoint: Path, out: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, out, "lacks model-00002.safetensors")


def test_no_weights(checkpoint: Path, out: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    refused(checkpoint, out, "has no safetensors weights")


def test_unknown_architecture(checkpoint: Path, out: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "warp_drive"}))
    refused(checkpoint, out, "warp_drive")


def test_architecture_that_is_no_decoder(checkpoint: Path, out: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(checkpoint, out, "'bert' is not supported")


def test_no_tokenizer(checkpoint: Path, out: Path) -> None:
    (checkpoint / TOKENIZER).unlink()
    refused(checkpoint, out, "has no tokenizer that basert can use", "tokenizer.json")


def test_damaged_tokenizer(checkpoint: Path, out: Path) -> None:
    (checkpoint / TOKENIZER).write_text('{"model": 1}')
    refused(checkpoint, out, "tokenizer.json", "damaged")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "model.safetensors.index.json",
    ],
)
@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_damaged_small_files(checkpoint: Path, out: Path, name: str, text: str) -> None:
    (checkpoint / name).write_text(text, encoding="latin-1")
    refused(checkpoint, out, name)


def test_sampling_defaults_of_another_kind(checkpoint: Path, out: Path) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"temperature": "hot"}))
    refused(checkpoint, out, str(checkpoint / "generation_config.json"), "$.temperature")


def test_configuration_of_another_kind(checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps({**config, "eos_token_id": "</s>"}))
    refused(checkpoint, out, "config.json", "eos_token_id", "</s>")


def test_weights_that_are_quantised_already(checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    quantised = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (checkpoint / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    refused(checkpoint, out, "quantised already (gptq)")


def test_link_that_leads_nowhere(checkpoint: Path, out: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").symlink_to("nowhere")
    assert folder_hash(checkpoint)
    refused(checkpoint, out, "lacks model.safetensors")


def test_folder_named_like_a_file(checkpoint: Path, out: Path) -> None:
    (checkpoint / "notes.json").mkdir()
    assert folder_hash(checkpoint)
    prepare(checkpoint, out)


def test_template_of_an_older_checkpoint(checkpoint: Path, out: Path) -> None:
    (checkpoint / CHAT_TEMPLATE).unlink()
    config = {"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "hello"}]}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    prepare(checkpoint, out)
    assert (out / CHAT_TEMPLATE).read_text() == "hello"


def test_slow_tokenizer_is_converted(checkpoint: Path, out: Path) -> None:
    """vocab.json and merges.txt, as GPT-2's and its heirs have them."""
    tokenizer = json.loads((checkpoint / TOKENIZER).read_bytes())
    (checkpoint / TOKENIZER).unlink()
    (checkpoint / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    (checkpoint / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    settings = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    prepare(checkpoint, out)
    assert json.loads((out / TOKENIZER).read_bytes())["model"]["vocab"] == tokenizer["model"]["vocab"]


class TestGguf:
    def test_becomes_a_checkpoint(self, tmp_path: Path, out: Path) -> None:
        prepare(write_gguf(tmp_path / "model.gguf"), out)
        assert json.loads((out / "config.json").read_bytes())["num_hidden_layers"] == 1
        assert (out / CHAT_TEMPLATE).is_file()

    @pytest.mark.parametrize("cut", [-2000, 3000, 10])
    def test_truncated(self, tmp_path: Path, out: Path, cut: int) -> None:
        path = write_gguf(tmp_path / "model.gguf")
        path.write_bytes(path.read_bytes()[:cut])
        refused(path, out, "model.gguf", "cut off")

    def test_unknown_architecture(self, tmp_path: Path, out: Path) -> None:
        refused(write_gguf(tmp_path / "model.gguf", architecture="warp"), out, "warp")
