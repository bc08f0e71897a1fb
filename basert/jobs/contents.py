"""What files hold: a folder of files under names of our own, and the parts that batches' answers come in.

Knows no record of them. What has a name is whole and on the disk; what is being written has none that anybody
would look for, and is swept away if its writer is gone.

    DIR/contents/<file's id>          what an upload or a batch left
    DIR/contents/.new-…               drafts
    DIR/database                      the name of the database whose records tell of all this
    DIR/parts/<batch's id>.<token>    answers of a batch that runs, as one of its holders wrote them
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from basert.errors import ConfigError, NotFound, Unavailable

CONTENTS = "contents"
PARTS = "parts"
MARK = "database"
_DRAFT = ".new-"
GRACE_SECONDS = 3600.0  # after which a draft that nobody has written to is nobody's
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Draft:
    """A file that is being written; gone when it is closed, unless it was kept."""

    def __init__(self, folder: Path) -> None:
        """Raises Unavailable, as writing does."""
        with told():
            handle, made = tempfile.mkstemp(prefix=_DRAFT, dir=folder)
        self.size = 0
        self._file = os.fdopen(handle, "wb", 1 << 18)
        self._path = Path(made)
        self._hash = hashlib.sha256()
        self._kept = False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        with told():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush(self) -> None:
        with told():
            self._file.flush()

    def keep(self, name: str) -> None:
        """Give it a name, by which it is found after any crash from now on. Slow."""
        with told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._path.rename(self._path.with_name(name))
            self._kept = True
            sync_folder(self._path.parent)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take before, it does not take now
            self._file.close()
        if not self._kept:
            self._path.unlink(missing_ok=True)


class Contents:
    def __init__(self, folder: Path) -> None:
        self.parts = folder / PARTS
        self._folder = folder / CONTENTS

    def prepare(self) -> None:
        """Make the folders. Raises ConfigError."""
        try:
            for folder in (self._folder, self.parts):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            Draft(self._folder).close()
        except (OSError, Unavailable) as error:
            why = getattr(error, "strerror", None) or error.__cause__
            raise ConfigError(
                f"--files-dir {self._folder.parent} cannot be written ({why}); name another."
            ) from None

    def belong_to(self, database: str) -> None:
        """Note by its name whose records tell of what is here. Raises ConfigError if another database's do.

        To this one, all of it would be what a crash left: it would be swept away.
        """
        mark = self._folder.parent / MARK
        if not mark.exists():
            made = mark.with_name(f"{_DRAFT}{database}")
            made.write_text(database)
            with contextlib.suppress(FileNotFoundError):  # another server of it was quicker
                made.rename(mark)
        if mark.read_text() != database:
            raise ConfigError(
                f"--files-dir {mark.parent} has the files of another database; name another folder, or "
                f"remove {mark} to give these files up."
            )

    def draft(self) -> Draft:
        return Draft(self._folder)

    def path(self, name: str) -> Path:
        """name: of our own making. Raises NotFound when its file is gone, which is nobody's doing here."""
        path = self._folder / name
        if not path.is_file():
            raise NotFound(f"The content of file '{name}' is gone; upload it again.", param="file_id")
        return path

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def sweep(
        self,
        known: Callable[[Collection[str]], Collection[str]],
        runs: Callable[[Collection[str]], Collection[str]],
    ) -> int:
        """Remove what no record tells of; return how many that were.

        known, runs: which of these files have a record, which of these batches are not done. Only what is so
        old that its writer cannot be about to record it is asked for.
        """
        old = list(_old(self._folder))
        contents = [(name, path) for name, path in old if not name.startswith(_DRAFT)]
        parts = [(name.partition(".")[0], path) for name, path in _entries(self.parts)]
        lost = [path for name, path in old if name.startswith(_DRAFT)]
        lost += _missing(contents, known)
        lost += _missing(parts, runs)
        for path in lost:
            path.unlink(missing_ok=True)
        return len(lost)


def _missing(
    named: list[tuple[str, Path]], known: Callable[[Collection[str]], Collection[str]]
) -> list[Path]:
    there = set(known({name for name, _ in named})) if named else set()
    return [path for name, path in named if name not in there]


def _entries(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in folder.iterdir()]


def _old(folder: Path) -> Iterator[tuple[str, Path]]:
    """Another process may remove any of them meanwhile."""
    for name, path in _entries(folder):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - GRACE_SECONDS:
                yield name, path


def sync_folder(folder: Path) -> None:
    """Have the names in it on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def told() -> Iterator[None]:
    """Raises Unavailable for a disk that takes no more, or fails."""
    try:
        yield
    except OSError as error:
        why = "is full; delete files" if error.errno in _FULL else f"failed ({error.strerror}); mend it"
        raise Unavailable(
            f"The server's disk for files {why}, then try again.", code="storage_failed"
        ) from error
