"""What a runtime compiled on this host, kept beside the bundle from one start to the next.

    <bundle>/compiled/<key>/    key: a hash of the facts; --compiled names another folder for it
      facts.json                Entry: what it was compiled from and for, and the sizes of its files
      …                         the runtime's own files

It is nothing to rely on: what is missing, cut off or older than the bundle is compiled anew, and what cannot
be written is not kept. Only what this host made under these facts is ever found.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import msgspec

from basert.manifest import COMPILED, Graph, Manifest
from engines.sessions.instructions import CPUINFO

FOLDER = COMPILED
FACTS = "facts.json"

_log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True):
    facts: dict[str, str]
    files: dict[str, int]  # name -> bytes


class Compiled:
    """One graph's compiled forms."""

    def __init__(self, bundle: Path, manifest: Manifest, graph: Graph, folder: Path | None = None) -> None:
        """folder: where they are kept, if not in the bundle."""
        self._folder = folder or bundle / FOLDER
        self._facts = {
            "graph": _digest(manifest, graph),
            "target": graph.target,
            "onnxruntime": _runtime(),
            "host": _host(),
        }

    def find(self, **facts: str) -> Path | None:
        """The folder of what was compiled under these facts, if it is there and whole."""
        folder = self._place(facts)
        try:
            entry = msgspec.json.decode((folder / FACTS).read_bytes(), type=Entry)
        except (OSError, msgspec.DecodeError):
            return None
        return folder if entry == Entry(self._facts | facts, _sizes(folder)) else None

    @contextlib.contextmanager
    def adding(self, **facts: str) -> Iterator[Path | None]:
        """An empty folder to compile into; what is in it when the block ends well is kept.

        None when nothing can be kept: the folder cannot be written, or another process is adding to it.
        """
        with self._alone() as alone:
            if not alone:
                yield None
                return
            new, place = self._folder / ".new", self._place(facts)
            shutil.rmtree(new, ignore_errors=True)  # of one that was killed
            new.mkdir()
            try:
                yield new
                with contextlib.suppress(OSError):  # no room left: then it is made again next time
                    self._keep(new, place, self._facts | facts)
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def _keep(self, new: Path, place: Path, facts: dict[str, str]) -> None:
        (new / FACTS).write_bytes(msgspec.json.encode(Entry(facts, _sizes(new))))
        for old in set(self._folder.iterdir()) - {new}:
            if old == place or (old.is_dir() and _replaces(facts, old)):
                shutil.rmtree(old)
        new.rename(place)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / ".lock").open("a")
        except OSError as error:
            _log.info("%s cannot be written (%s): nothing compiled is kept", self._folder, error.strerror)
            yield False
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def _place(self, facts: dict[str, str]) -> Path:
        key = hashlib.sha256(msgspec.json.encode(self._facts | facts, order="sorted")).hexdigest()
        return self._folder / key[:24]


def _replaces(facts: Mapping[str, str], old: Path) -> bool:
    """Whether what is in `old` was made for the same purpose, of what has changed since: it is stale."""
    try:
        there = msgspec.json.decode((old / FACTS).read_bytes(), type=Entry).facts
    except (OSError, msgspec.DecodeError):
        return True
    return all(there.get(name) == facts.get(name) for name in ("target", "kind"))


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name != FACTS}


def _digest(manifest: Manifest, graph: Graph) -> str:
    """Of the graph and the weights beside it, by the hashes that the manifest has of them."""
    return " ".join(file.sha256 for file in manifest.files if file.path.startswith(graph.path))


def _runtime() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return "none"


def _host() -> str:
    """The CPU's model and instructions: a hash."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = [platform.machine()]
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:24]
