"""The pipeline on a small random Llama: a whole bundle, or the store as it was, and work that goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from basert import store
from basert.errors import ExportError, ParityError
from basert.manifest import CHAT_TEMPLATE, GENERATION, MANIFEST, TOKENIZER_CONFIG, read_manifest
from export import bundle, pipeline, workspace
from export.pipeline import Exported, ExportRequest
from tests.export.small import END, hash_of, write_checkpoint, write_gguf
from tests.tiny import write_testing_bundle

STEPS = ("checkpoint", "graph", "parity", "golden", "write")


def export(source: Path, **settings: Any) -> Exported:
    return pipeline.run(ExportRequest(str(source), **{"variant": "fp32", "max_context": 256, **settings}))


def left_behind(home: Path) -> list[str]:
    """What a store or the work folder should not have after an export."""
    kept = [path.name for path in (home / "store").iterdir() if path.name.startswith(".")]
    return kept + [path.name for path in (home / "cache/basert/work").iterdir() if path.suffix != ".lock"]


def test_whole_bundle(home: Path, small_checkpoint: Path) -> None:
    done = export(small_checkpoint)
    assert done.fresh
    assert done.bundle == home / "store" / "small"
    manifest = read_manifest(done.bundle)
    assert {file.path: hash_of(done.bundle / file.path) for file in manifest.files} == {
        file.path: file.sha256 for file in manifest.files
    }
    assert (manifest.max_context, manifest.slots, manifest.vocab_size) == (256, 16, 301)
    assert (manifest.variant, manifest.has_chat_template) == ("fp32", True)
    assert manifest.eos_token_ids == [2, 0]  # the tokenizer's own first
    assert json.loads((done.bundle / GENERATION).read_bytes())["temperature"] == 0.7
    assert json.loads((done.bundle / TOKENIZER_CONFIG).read_bytes()) == {"eos_token": END}
    assert manifest.provenance.source.uri == str(small_checkpoint)
    assert manifest.parity.max_logit_difference < 1e-3
    assert left_behind(home) == []


def test_same_inputs_are_not_exported_again(home: Path, small_checkpoint: Path) -> None:
    first = export(small_checkpoint)
    before = (first.bundle / MANIFEST).stat().st_mtime_ns
    assert not export(small_checkpoint).fresh
    assert (first.bundle / MANIFEST).stat().st_mtime_ns == before
    assert export(small_checkpoint, slots=2).manifest.slots == 2
    assert export(small_checkpoint, slots=2, force=True).fresh


def test_too_long_a_context(home: Path, small_checkpoint: Path) -> None:
    with pytest.raises(ExportError, match=r"100000 .* 512"):
        export(small_checkpoint, max_context=100_000)


def test_gguf_without_template_of_its_own_name(home: Path) -> None:
    done = export(write_gguf(home / "model.gguf"), max_context=None)
    assert done.manifest.max_context == 128
    assert (done.bundle / CHAT_TEMPLATE).is_file()


def test_base_model_has_no_template(home: Path) -> None:
    done = export(write_checkpoint(home / "base", template=False))
    assert not done.manifest.has_chat_template
    assert not (done.bundle / CHAT_TEMPLATE).exists()


def test_ends_that_the_vocabulary_has_not_are_left_out(home: Path) -> None:
    checkpoint = write_checkpoint(home / "ends")
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [0, -1, 99999]}')
    assert export(checkpoint).manifest.eos_token_ids == [2, 0]


def test_a_context_too_short_to_measure(home: Path) -> None:
    checkpoint = write_checkpoint(home / "short")
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    with pytest.raises(ExportError, match="context of 32 tokens is too short"):
        export(checkpoint, max_context=None)


@pytest.mark.parametrize("late", ["export.decoders.make_golden", "export.pipeline.write_bundle"])
def test_goes_on_where_it_was_interrupted(
    home: Path,
    small_checkpoint: Path,
    late: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(late, interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(small_checkpoint)
    assert list((home / "store").iterdir()) == []
    capsys.readouterr()
    assert export(small_checkpoint).fresh
    said = capsys.readouterr().err
    assert "checkpoint: done before" in said
    assert "parity: done before" in said
    assert "write: done in" in said
    assert left_behind(home) == []


def test_a_changed_setting_keeps_what_it_does_not_touch(
    home: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("export.decoders.check", _over_the_limit)
        with pytest.raises(ParityError, match="over the limit"):
            export(small_checkpoint)
    capsys.readouterr()
    export(small_checkpoint, max_context=128)
    said = capsys.readouterr().err
    assert "checkpoint: done before" in said
    assert "graph: done in" in said


def _over_the_limit(*_: object) -> None:
    raise ParityError("over the limit")


def test_signal_in_a_real_process(home: Path, small_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "basert", "export", str(small_checkpoint), "--variant", "fp32"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("graph") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert list((home / "store").iterdir()) == []


def test_disk_full(home: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real ENOSPC while the bundle is being written over an older one."""
    old = hash_of(export(small_checkpoint).bundle / MANIFEST)

    def full(*_: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write_json", full)
        with pytest.raises(ExportError, match="disk is full"):
            export(small_checkpoint, slots=2)
    assert hash_of(home / "store" / "small" / MANIFEST) == old
    assert export(small_checkpoint, slots=2).manifest.slots == 2


def test_too_little_space_is_said_before(
    home: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ExportError, match=r"the fp32 graph needs .* and 1.00kB are free"):
        export(small_checkpoint)


def test_library_that_meets_a_full_disk() -> None:
    class SafetensorError(Exception):
        pass

    with pytest.raises(ExportError, match="disk is full"), workspace.disk_full_is_an_export_error():
        raise SafetensorError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")


def test_folders_that_cannot_be_written(
    home: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("BASERT_HOME", str(home / "file" / "store"))
    with pytest.raises(ExportError, match=r"store .* cannot be written .* set BASERT_HOME"):
        export(small_checkpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file" / "cache"))
    with pytest.raises(ExportError, match=r"cache .* cannot be written .* set XDG_CACHE_HOME"):
        export(small_checkpoint)


def test_only_one_export_of_a_bundle_at_a_time(home: Path, small_checkpoint: Path) -> None:
    export(small_checkpoint)
    [lock] = (home / "cache/basert/work").glob("*.lock")
    with (
        workspace.lock(lock, refuse="never"),
        pytest.raises(ExportError, match="another export of small is running"),
    ):
        export(small_checkpoint, force=True)


def test_bundle_of_another_source_is_not_overwritten(home: Path, small_checkpoint: Path) -> None:
    write_testing_bundle(home / "store", name="small")
    with pytest.raises(ExportError, match=r"bundle small from another source .* --force"):
        export(small_checkpoint)
    assert export(small_checkpoint, force=True).fresh


def test_what_a_killed_export_left_is_put_right(home: Path) -> None:
    """Killed between its two renames: the old bundle is put back, the new one was never finished."""
    target = write_testing_bundle(home / "store")
    target.rename(target.with_name(".tiny.old"))
    (target.with_name(".tiny.new")).mkdir()
    bundle.clear(target)
    assert store.bundles() == [target]
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]


def test_abandoned_work_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export import steps

    works = home / "work"
    for age, name in enumerate(("newest", "locked", "oldest")):
        (works / name).mkdir(parents=True)
        (works / name / "weights").write_bytes(b"x" * 100)
        os.utime(works / name, (1000 - age, 1000 - age))
    with workspace.lock(steps.lock_of(works / "locked"), refuse="never"):
        for keep, left in ((200, {"newest", "locked"}), (100, {"locked"}), (0, {"locked"})):
            monkeypatch.setattr(steps, "KEEP_BYTES", keep)
            steps.forget_old_work(works)
            assert {path.name for path in works.iterdir() if path.is_dir()} == left
