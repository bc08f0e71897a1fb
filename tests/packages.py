"""Test data that packages carry: downloaded by pip, hash checked, unpacked, never imported."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

DATA = Path(__file__).parents[1] / ".cache" / "test-data"

# requirement -> (file, SHA-256, what of it is kept)
_PINNED = {
    # The JSON Schema Test Suite (MIT) comes with the source of jsonschema (MIT).
    "jsonschema==4.26.0": (
        "jsonschema-4.26.0.tar.gz",
        "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326",
        "jsonschema-4.26.0/json/tests/",
    ),
    # The Berkeley Function-Calling Leaderboard's cases (Apache-2.0).
    "bfcl-eval==2026.3.23": (
        "bfcl_eval-2026.3.23-py3-none-any.whl",
        "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
        "bfcl_eval/data/",
    ),
    # Silero VAD as its authors publish it (MIT): what the server's own arithmetic is held to.
    "silero-vad==6.2.3": (
        "silero_vad-6.2.3-py3-none-any.whl",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data/silero_vad_16k_op15.onnx",
    ),
}


def unpacked(requirement: str) -> Path:
    """The folder with the data of a pinned package."""
    name, digest, kept = _PINNED[requirement]
    folder = DATA / name
    if not folder.is_dir():
        DATA.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DATA) as scratch:
            archive = _download(requirement, name, Path(scratch))
            assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest, f"{name} is another file"
            _unpack(archive, kept, Path(scratch) / "data")
            shutil.move(Path(scratch) / "data", folder)
    return folder / kept


def _download(requirement: str, name: str, into: Path) -> Path:
    kind = "--only-binary=:all:" if name.endswith(".whl") else f"--no-binary={requirement.partition('==')[0]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, "--dest", str(into)]
    # pip asks a source package for its metadata once it is here; whether that works does not matter.
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    assert (into / name).is_file(), done.stderr
    return into / name


def _unpack(archive: Path, kept: str, into: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(into, [one for one in wheel.namelist() if one.startswith(kept)])
    else:
        with tarfile.open(archive) as source:
            members = [one for one in source.getmembers() if one.name.startswith(kept)]
            source.extractall(into, members, filter="data")
