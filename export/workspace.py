"""The cache folder an export works in: where it is, who has it locked, what fits in it, hashes of files.

$XDG_CACHE_HOME/basert, else ~/.cache/basert
  sources/     fetched checkpoints, kept so that another export downloads nothing
  work/        finished steps of exports under way, removed when the export is done
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from basert.errors import ExportError
from basert.paths import expand
from basert.progress import Show, amount, note

CHECKPOINT_KINDS = {".json", ".safetensors", ".model", ".jinja", ".txt"}  # suffixes of a checkpoint's files
BLOCK = 1 << 22  # bytes read at once when hashing


def cache_root() -> Path:
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache").absolute() / "basert"


@contextmanager
def lock(path: Path, *, wait: str = "", refuse: str = "") -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    While another process holds it: raise ExportError(refuse), or else say `wait` and wait.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise ExportError(
            f"the cache {path.parent} cannot be written ({error.strerror}):"
            " set XDG_CACHE_HOME to a folder that you may write."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if refuse:
                raise ExportError(refuse) from None
            note(wait)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_of(files: Iterable[Path], show: Show | None = None) -> str:
    """One SHA-256 over the contents of the files, in the order given."""
    files = list(files)
    total, done = sum(file.stat().st_size for file in files), 0
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                if show:
                    show(done, total)
    return digest.hexdigest()


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that can change what is exported, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_KINDS and path.is_file())


def size_of(folder: Path) -> int:
    """Bytes of everything in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def link_or_copy(source: Path, target: Path) -> None:
    """A large file in a second place: a hard link where the file system allows it, else a copy."""
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        require_space(target.parent, source.stat().st_size, f"a copy of {source.name}")
        shutil.copyfile(source, target)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises ExportError unless `needed` bytes are free where `folder` is (or will be)."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ExportError(
            f"{what} needs {amount(needed, 'B')} in {folder}, and {amount(free, 'B')} are free:"
            " free some space, or point XDG_CACHE_HOME (work) or BASERT_HOME (bundles) elsewhere."
        )


@contextmanager
def disk_full_is_an_export_error() -> Iterator[None]:
    """Turns "no space left" into one sentence, from Python's own writes or from a library's."""
    try:
        yield
    except Exception as error:
        if os.strerror(errno.ENOSPC) in str(error):  # libraries raise it under names of their own
            where = getattr(error, "filename", None) or cache_root()
            raise ExportError(
                f"the disk is full ({where}): free some space and run the same command again;"
                " the steps that were finished are kept."
            ) from error
        raise
