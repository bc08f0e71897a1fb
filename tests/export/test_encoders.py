"""Exported encoders answer what transformers and sentence-transformers do, alone and in padded batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.encoders.graph import encoder_from_checkpoint
from export.encoders.runner import EncoderRunner, Input
from export.prepare import prepare
from tests.export.encoders import ARCHITECTURES, POOLINGS, VOCAB, sentence_modules, write_encoder
from tests.tiny import encoder_tokenizer

CLOSE = 1e-4
LENGTHS = [1, 2, 3, 17, 31, 64, 5, 40]

Values = NDArray[np.float32]


def exported(checkpoint: Path, tmp_path: Path) -> EncoderRunner:
    prepared, out = tmp_path / "prepared", tmp_path / "graph"
    prepared.mkdir()
    prepare(checkpoint, prepared)
    encoder_from_checkpoint(prepared, out, max_tokens=64)
    return EncoderRunner(out, threads=1)


def random_inputs(lengths: list[int] = LENGTHS) -> list[Input]:
    random = np.random.default_rng(0)
    return [Input(random.integers(4, 300, length).tolist(), [0] * length) for length in lengths]


def of_transformers(checkpoint: Path, kind: str, inputs: list[Input]) -> list[torch.Tensor]:
    """Each alone: the last hidden states [tokens, hidden], or logits [labels]."""
    import transformers

    model = getattr(transformers, kind).from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        answers = [model(input_ids=torch.tensor([one.ids])) for one in inputs]
    return [(answer.logits if "logits" in answer else answer.last_hidden_state)[0] for answer in answers]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    pooling = "lasttoken" if request.param == "qwen3" else "mean_tokens"
    folder = tmp_path_factory.mktemp(request.param)
    return write_encoder(folder / "it", request.param, modules=sentence_modules(pooling)), pooling


def test_an_architecture_is_what_transformers_computes(embedder: tuple[Path, str], tmp_path: Path) -> None:
    checkpoint, pooling = embedder
    runner, inputs = exported(checkpoint, tmp_path), random_inputs()
    states = of_transformers(checkpoint, "AutoModel", inputs)
    pooled = [one[-1] if pooling == "lasttoken" else one.mean(0) for one in states]
    expected = torch.nn.functional.normalize(torch.stack(pooled), dim=1).numpy()
    assert np.std(expected, axis=0).max() > 0.05  # texts differ, and so do their vectors
    for padding in (0, 1, VOCAB - 1):
        np.testing.assert_allclose(runner.encode(inputs, 64, padding), expected, atol=CLOSE)
    alone = np.concatenate([runner.encode([one]) for one in inputs])
    np.testing.assert_allclose(alone, expected, atol=CLOSE)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_that_of_sentence_transformers(pooling: str, normalise: bool, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    modules = sentence_modules(pooling, normalise=normalise)
    checkpoint = write_encoder(tmp_path / "it", "bert", modules=modules)
    texts = ["hello", "the user wizards jump hello world", "world " * 20]
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(texts, show_progress_bar=False)
    tokenizer = encoder_tokenizer()
    inputs = [Input(tokenizer.encode(text).ids, tokenizer.encode(text).type_ids) for text in texts]
    runner = exported(checkpoint, tmp_path)
    np.testing.assert_allclose(runner.encode(inputs, 64), np.asarray(expected), atol=CLOSE)
    assert runner.graph.encoder.normalised == normalise


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "modernbert", "distilbert"])
def test_a_classifier_is_what_transformers_computes(architecture: str, labels: int, tmp_path: Path) -> None:
    checkpoint = write_encoder(tmp_path / "it", architecture, labels=labels)
    runner, inputs = exported(checkpoint, tmp_path), random_inputs()
    expected = torch.stack(of_transformers(checkpoint, "AutoModelForSequenceClassification", inputs)).numpy()
    np.testing.assert_allclose(runner.encode(inputs, 64), expected, atol=CLOSE)
    encoder = runner.graph.encoder
    assert (encoder.task, encoder.width) == ("classification", labels)
    assert encoder.activation == ("sigmoid" if labels == 1 else "softmax")


def test_the_second_text_of_a_pair_is_told_from_the_first(tmp_path: Path) -> None:
    import transformers

    checkpoint = write_encoder(tmp_path / "it", "bert", labels=1)
    runner = exported(checkpoint, tmp_path)
    assert runner.graph.encoder.pairs
    assert runner.graph.encoder.token_types
    pair = encoder_tokenizer().encode("hello the user", "wizards jump")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = model(torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).logits
    found = runner.encode([Input(pair.ids, pair.type_ids)], 32)
    np.testing.assert_allclose(found, expected.numpy(), atol=CLOSE)
    assert abs(found - runner.encode([Input(pair.ids, [0] * len(pair.ids))], 32)).max() > 10 * CLOSE


def test_what_sentence_transformers_says_is_in_the_description(tmp_path: Path) -> None:
    modules: dict[str, Any] = sentence_modules("mean_tokens", max_tokens=48)
    modules["config_sentence_transformers.json"] = {
        "prompts": {"query": "query: ", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "dot",
    }
    prepared, out = tmp_path / "prepared", tmp_path / "graph"
    prepared.mkdir()
    prepare(write_encoder(tmp_path / "it", "bert", modules=modules), prepared)
    encoder = encoder_from_checkpoint(prepared, out).encoder
    assert encoder.max_tokens == 48
    assert encoder.prompts["query"] == "query: "
    assert encoder.similarity == "dot"
    assert encoder.pooling == "mean"
