"""Whispers of several shapes with random weights: their graphs against transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from basert.errors import ExportError
from basert.manifest import Blob
from engines.sounds import SILENCE, draw
from export.graph import GRAPH as DECODER
from export.graph import read_decoder, save
from export.passes.attend import fuse_attention
from export.passes.smooth import smooth
from export.speech.cross import hear_rounded, round_heard
from export.speech.describe import describe
from export.speech.graph import (
    GRAPH,
    described,
    load_model,
    read_listener,
    save_listener,
    speech_from_checkpoint,
)
from export.speech.parity import Reference
from export.speech.runner import HearingRunner, ListenerRunner
from export.speech.sounds import speech_like
from tests.export.whispers import FRAMES, write_whisper

HEADS = {"alignment_heads": [[0, 1]]}
SHAPES: dict[str, dict[str, Any]] = {
    "as many layers": {
        "decoder_layers": 2,
        "num_mel_bins": 80,
        "told": {"alignment_heads": [[1, 1], [0, 0]]},
    },
    "turbo": {"num_mel_bins": 128, "told": HEADS},
    "nobody told": {"encoder_attention_heads": 4, "decoder_ffn_dim": 192},
}


@dataclass
class Small:
    checkpoint: Path
    graphs: Path
    reference: Reference
    listener: ListenerRunner
    sounds: list[Any]  # [mels, 2 * frames]

    def runner(self, slots: int = 3) -> HearingRunner:
        """Slot i hears sound i."""
        return hearing(self.graphs, self.listener, self.sounds[:slots])


def hearing(graphs: Path, listener: ListenerRunner, sounds: list[Any]) -> HearingRunner:
    runner = HearingRunner(graphs, slots=len(sounds), max_context=64, threads=1)
    cross = listener.listen(np.stack(sounds))
    for slot in range(len(sounds)):
        runner.hear(slot, cross, slot)
    return runner


@pytest.fixture(scope="module", params=SHAPES)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("whisper")
    checkpoint = write_whisper(folder / "checkpoint", **SHAPES[request.param])
    speech_from_checkpoint(checkpoint, folder / "fp32")
    listener = ListenerRunner(folder / "fp32", threads=1)
    mels = listener.listener.speech.mels
    sounds = [draw(speech_like(seed, 1.2, mels), mels, 2 * FRAMES) for seed in range(3)]
    return Small(checkpoint, folder / "fp32", Reference(checkpoint, threads=1), listener, sounds)


def test_the_listener_hears_what_transformers_hears(small: Small) -> None:
    ours = small.listener.listen(np.stack(small.sounds))
    for row, features in enumerate(small.sounds):
        expected = small.reference.cross(small.reference.listen(features))
        assert ours.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(ours[name][row], array, atol=1e-4)


def test_rows_of_different_lengths_hear_their_own_windows(small: Small) -> None:
    texts = [[301, 5, 9, 12], [301, 40, 41, 42, 43, 44, 45, 46, 47], [301, 7]]
    runner, vocab = small.runner(), read_decoder(small.graphs).vocab_size
    first = np.zeros((3, 8), np.int64)  # padded on the right, all at once
    for row, ids in enumerate(texts):
        first[row, : len(ids) - 1] = ids[:-1]
    expected = [
        small.reference.logits(small.reference.listen(features), ids).numpy()
        for features, ids in zip(small.sounds, texts, strict=True)
    ]
    ends = [len(ids) - 2 for ids in texts]
    logits = np.empty((3, vocab), np.float32)
    feeds = runner.feeds(first, [0, 0, 0], [8 * row + end for row, end in enumerate(ends)])
    feeds["seqlens_k"] = np.array(ends, np.int32)
    runner.bind(0, feeds, {"logits": logits})()
    for row, end in enumerate(ends):
        np.testing.assert_allclose(logits[row], expected[row][end], atol=1e-3)
    last = runner.decode([ids[-1] for ids in texts], [len(ids) - 1 for ids in texts])
    for row, _ in enumerate(texts):
        np.testing.assert_allclose(last[row], expected[row][-1], atol=1e-3)


def test_a_text_in_chunks_is_greedily_continued_alike(small: Small) -> None:
    runner, ids = small.runner(1), [301, 10, 20, 30, 40, 50]
    heard = small.reference.listen(small.sounds[0])
    runner.chunk(0, ids[:2], 0)
    logits = runner.chunk(0, ids[2:], 2, rows=[3])[0]
    for _ in range(12):
        expected = small.reference.logits(heard, ids).numpy()[-1]
        np.testing.assert_allclose(logits, expected, atol=1e-3)
        ids.append(int(logits.argmax()))
        logits = runner.decode([ids[-1]], [len(ids) - 1])[0]


def test_alignment_heads_show_what_they_attend_to(small: Small) -> None:
    told = read_listener(small.graphs).speech.alignment_heads
    names = [tensor.name for tensor in read_decoder(small.graphs).outputs]
    assert ("alignment" in names) == bool(told)
    if not told:
        return
    ids, runner = [301, 10, 20, 30, 40], small.runner()
    with torch.no_grad():
        out = small.reference.model(
            encoder_outputs=(small.reference.listen(small.sounds[1]),),
            decoder_input_ids=torch.tensor([ids]),
            output_attentions=True,
        )
    heads = [(1, 1), (0, 0)] if told == 2 else [(0, 1)]
    expected = torch.stack([out.cross_attentions[layer][0, head] for layer, head in sorted(heads)], 1)
    seen = np.empty((len(ids), told, FRAMES), np.float32)
    runner.run(1, np.array([ids]), [0], list(range(len(ids))), {"alignment": seen})
    np.testing.assert_allclose(seen, expected.numpy(), atol=1e-4)
    alone = np.empty((2, told, FRAMES), np.float32)
    runner.run(0, np.full((2, 1), ids[-1]), [0, 4], [0, 1], {"alignment": alone})
    np.testing.assert_allclose(alone[1], expected[-1].numpy(), atol=1e-4)


def test_eight_bits_are_heard_as_what_they_stand_for(small: Small, tmp_path: Path) -> None:
    """The decoder over rounded keys and values, against the fp32 one over their products with the scales."""
    cross = small.listener.listen(np.stack(small.sounds))
    scales = {name: np.abs(array).max(axis=(0, 2)) / 127 for name, array in cross.items()}
    listener, decoder = ir.load(small.graphs / GRAPH), ir.load(small.graphs / DECODER)
    round_heard(listener, scales)
    hear_rounded(decoder, scales)
    save_listener(listener, described(listener, read_listener(small.graphs).speech), tmp_path)
    save(decoder, redescribed(decoder, small.graphs), tmp_path)
    rounded = ListenerRunner(tmp_path, threads=1).listen(np.stack(small.sounds))
    assert {array.dtype for array in rounded.values()} == {np.dtype(np.int8)}
    ours, exact = hearing(tmp_path, ListenerRunner(tmp_path), small.sounds), small.runner()
    for slot in range(3):
        meant = {name: array * scales[name][:, None] for name, array in rounded.items()}
        exact.hear(slot, {name: array.astype(np.float32) for name, array in meant.items()}, slot)
        for name, array in cross.items():
            np.testing.assert_allclose(meant[name], array, atol=float(scales[name].max()))
        chunk = [runner.chunk(slot, [301, 8, 9][: slot + 1], 0) for runner in (ours, exact)]
        np.testing.assert_allclose(*chunk, atol=1e-3)
    if told := read_listener(small.graphs).speech.alignment_heads:
        seen = [np.empty((3, told, FRAMES), np.float32) for _ in range(2)]
        for runner, array in zip((ours, exact), seen, strict=True):
            runner.run(0, np.array([[5], [6], [7]]), [1, 2, 3], [0, 1, 2], {"alignment": array})
        np.testing.assert_allclose(*seen, atol=1e-4)
    for step in range(3):  # what is heard stays as it was, though every step writes to it
        made = [runner.decode([5, 6, 7], [1 + step, 2 + step, 3 + step]) for runner in (ours, exact)]
        np.testing.assert_allclose(*made, atol=1e-3)


def redescribed(model: ir.Model, graphs: Path) -> Any:
    from export.graph import describe as describe_decoder

    return describe_decoder(model, read_decoder(graphs))


def test_fused_attention_hears_the_same(small: Small, tmp_path: Path) -> None:
    model = ir.load(small.graphs / GRAPH)
    fuse_attention(model)
    kinds = [node.op_type for node in model.graph]
    layers = load_model(small.checkpoint).config.encoder_layers
    assert kinds.count("MultiHeadAttention") == layers
    assert "Softmax" not in kinds
    save_listener(model, read_listener(small.graphs), tmp_path)
    same(small, ListenerRunner(tmp_path, threads=1))


def test_smoothing_leaves_both_graphs_as_they_are(small: Small, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in (GRAPH, DECODER):
        model = ir.load(small.graphs / name)
        from export.passes.anatomy import linears

        squares = {
            layer.name: draws.uniform(0.1, 9, layer.matrix().shape[0]).astype(np.float32)
            for layer in linears(model)
        }
        sources = {layer.name: layer.source for layer in linears(model)}
        for weight, source in sources.items():  # layers that read the same have the same statistics
            squares[weight] = next(squares[other] for other in sources if sources[other] is source)
        applied = smooth(model, squares, lambda site: site.loudness)
        assert any("fc1" in weight for weight in applied)
        assert any("out_proj" in weight for weight in applied)
        if name == GRAPH:
            save_listener(model, read_listener(small.graphs), tmp_path)
        else:
            save(model, read_decoder(small.graphs), tmp_path)
    listener = ListenerRunner(tmp_path, threads=1)
    same(small, listener)
    smoothed = hearing(tmp_path, listener, small.sounds).chunk(1, [301, 8, 9], 0)
    np.testing.assert_allclose(smoothed, small.runner().chunk(1, [301, 8, 9], 0), atol=1e-3)


def same(small: Small, listener: ListenerRunner) -> None:
    ours, expected = (one.listen(np.stack(small.sounds)) for one in (listener, small.listener))
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-4)


class TestDescription:
    def test_of_a_checkpoint_that_tells_everything(self, tmp_path: Path) -> None:
        told = {
            "is_multilingual": True,
            "lang_to_id": {"<|en|>": 302, "<|de|>": 303},
            "task_to_id": {"translate": 304, "transcribe": 305},
            "no_timestamps_token_id": 309,
            "prev_sot_token_id": 307,
            "suppress_tokens": [1, 2, -1],
            "begin_suppress_tokens": [3],
            "max_initial_timestamp_index": 25,
            "alignment_heads": [[0, 1]],
        }
        speech = described_by(tmp_path, told)
        assert speech.languages == {"en": 302, "de": 303}
        assert (speech.translate, speech.transcribe, speech.sot) == (304, 305, 301)
        assert (speech.previous, speech.no_speech, speech.no_timestamps) == (307, 308, 309)
        assert (speech.timestamp_begin, speech.max_initial_timestamp) == (310, 25)
        assert (speech.suppress, speech.suppress_first, speech.alignment_heads) == ([1, 2], [3], 1)

    def test_of_one_that_leaves_it_to_the_tokenizer(self, tmp_path: Path) -> None:
        full = described_by(tmp_path / "a", {"is_multilingual": True})
        assert full.languages == {"en": 302, "de": 303}
        assert (full.translate, full.transcribe, full.previous, full.no_timestamps) == (304, 305, 307, 309)
        assert (full.suppress, full.suppress_first, full.alignment_heads) == ([], [7, 0], 0)

    def test_an_english_model_has_no_languages(self, tmp_path: Path) -> None:
        speech = described_by(tmp_path, {"is_multilingual": False})
        assert (speech.languages, speech.transcribe, speech.translate) == ({}, None, None)

    def test_alignment_heads_of_another_model_are_none(self, tmp_path: Path) -> None:
        assert described_by(tmp_path, {"alignment_heads": [[0, 1], [3, 0]]}).alignment_heads == 0

    def test_no_timestamps_no_export(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="no timestamps in its vocabulary"):
            described_by(tmp_path, {"no_timestamps_token_id": 1000})


def described_by(folder: Path, told: dict[str, Any]) -> Any:
    checkpoint = write_whisper(folder / "checkpoint", told=told)
    return describe(checkpoint, load_model(checkpoint).config)


@pytest.mark.parametrize(
    "settings", [{"activation_function": "relu"}, {"scale_embedding": True}, {"tie_word_embeddings": False}]
)
def test_what_no_whisper_of_openai_has_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    checkpoint = write_whisper(tmp_path / "checkpoint", **settings)
    with pytest.raises(ExportError, match=next(iter(settings))):
        speech_from_checkpoint(checkpoint, tmp_path / "out")


def test_a_sound_is_what_its_blobs_say() -> None:
    window = draw([Blob(2, 5, 1.5, 0.5, 2)], 8, 20)
    assert window.shape == (8, 20)
    assert window[2, 5] == pytest.approx(SILENCE + 1.5)
    assert window[2, 7] == pytest.approx(SILENCE + 1.5 / np.e)
    assert window[7, 19] == pytest.approx(SILENCE)
