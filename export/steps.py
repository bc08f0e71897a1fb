"""Finished steps of an export, kept in a work folder so that an interrupted one goes on where it was.

    <work>/<step>/       what the step wrote
    <work>/<step>.key    hash of what it was made from; written when the step is done

A step runs again when its inputs, the export code, or the libraries changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from basert import __version__
from basert.errors import ExportError
from basert.progress import Show, note, task
from export.workspace import lock, sha256_of, size_of

LIBRARIES = ("torch", "transformers", "onnxruntime", "onnx-ir", "mobius-onnx")
KEEP_BYTES = 40 << 30  # of abandoned work; the oldest goes first


@dataclass(frozen=True)
class Step:
    folder: Path
    key: str


class Steps:
    """The steps of one export, in its own work folder. The caller holds the folder's lock."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def run(self, name: str, inputs: list[str], make: Callable[[Path, Show], object]) -> Step:
        """The step's folder, filled by `make(folder, show)` unless the same inputs were done before."""
        key = key_of([name, code_key(), *inputs])
        step, mark = Step(self.work / name, key), self.work / f"{name}.key"
        if mark.is_file() and mark.read_text() == key:
            note(f"{name}: done before")
            return step
        mark.unlink(missing_ok=True)
        shutil.rmtree(step.folder, ignore_errors=True)
        step.folder.mkdir(parents=True)
        with task(name) as show:
            make(step.folder, show)
        mark.write_text(key)
        return step

    def clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


def key_of(inputs: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


@cache
def code_key() -> str:
    """Changes with basert's own export code and with the libraries it builds on."""
    here = Path(__file__).parent
    files = sorted(path for path in here.rglob("*") if path.suffix in (".py", ".txt"))
    return key_of([__version__, sha256_of(files), *(version(name) for name in LIBRARIES)])


def forget_old_work(folder: Path) -> None:
    """Delete the oldest abandoned work folders until what is left is within KEEP_BYTES."""
    works = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    left = sum(size_of(path) for path in works)
    for work in works:
        if left <= KEEP_BYTES:
            return
        with contextlib.suppress(ExportError), lock(lock_of(work), refuse="in use"):
            left -= size_of(work)
            shutil.rmtree(work)


def lock_of(work: Path) -> Path:
    return work.with_suffix(".lock")
