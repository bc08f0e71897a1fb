"""A bundle's files and their digests, as the model-signing library wants them: each hashed once per change.

The one file that imports the library; basert.signing loads it when a signature is wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_signing import hashing, manifest

from basert.errors import BundleError
from basert.manifest import COMPILED, SIGNATURE

SETTLED_SECONDS = 2.0  # a file that changed more lately could change again and look the same

Facts = tuple[int, ...]  # of a file: they are others after it was changed

_known: dict[Facts, Any] = {}  # the library's digests of what this process has hashed


class Found(manifest.Manifest):  # type: ignore[misc]
    """The files that are there; compared with those that were signed, the first that differs is named."""

    def __eq__(self, signed: object) -> bool:
        """True; else raises BundleError."""
        assert isinstance(signed, manifest.Manifest)
        if _how(signed) != _how(self):
            raise BundleError(f"{self.model_name} was signed in another way; `basert sign` signs it in ours.")
        there, then = _digests(self), _digests(signed)
        for name in sorted(there.keys() | then.keys()):
            if name not in then:
                raise _differs(self, name, "was added")
            if name not in there:
                raise _differs(self, name, "was removed")
            if there[name] != then[name]:
                raise _differs(self, name, "was changed")
        return True

    __hash__ = None  # type: ignore[assignment]


def _how(files: manifest.Manifest) -> tuple[str, str]:
    kind = files.serialization_type
    return kind["method"], kind["hash_type"]


def _digests(files: manifest.Manifest) -> dict[str, Any]:
    """By the file's name in the bundle."""
    return {one.identifier: one.digest for one in files.resource_descriptors()}


def _differs(files: manifest.Manifest, name: str, how: str) -> BundleError:
    where = "get the bundle from where it was signed."
    return BundleError(f"{name} {how} after {files.model_name} was signed; {where}")


class OncePerChange(hashing.Config):  # type: ignore[misc]
    """How the library is to hash a bundle: all of its files, but for what this host adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.set_ignored_paths(paths=(), ignore_git_paths=False)

    def add_ignored_paths(self, **_: object) -> None:
        """What is left out is not for a signature to say."""

    def hash(self, model_path: Path, **_: object) -> Found:
        """Raises BundleError for a link, OSError."""
        facts = {path: _facts(path) for path in _files(model_path)}
        unknown = [path for path in facts if facts[path] not in _known]
        digests = {path: _known[facts[path]] for path in facts if facts[path] in _known}
        if unknown:
            fresh = _digests(super().hash(model_path, files_to_hash=unknown))
            digests |= {path: fresh[path.relative_to(model_path).as_posix()] for path in unknown}
        settled = time.time_ns() - SETTLED_SECONDS * 1e9
        _known.update({facts[path]: digests[path] for path in unknown if max(facts[path][-2:]) < settled})
        items = [_FILES.new_item(str(path.relative_to(model_path)), digests[path]) for path in digests]
        return Found(model_path.name, items, _FILES)


_FILES = manifest.SerializationType.from_args(
    {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE, f"{SIGNATURE}.new", COMPILED],
    }
)


def _files(bundle: Path) -> Iterator[Path]:
    """Every file that has to be signed. Raises BundleError for what is neither a file nor a folder."""
    for entry in sorted(bundle.iterdir()):
        if entry.name not in (SIGNATURE, f"{SIGNATURE}.new", COMPILED):
            yield from _below(entry, bundle)


def _below(entry: Path, bundle: Path) -> Iterator[Path]:
    if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
        name, what = entry.relative_to(bundle), "a link" if entry.is_symlink() else "no file"
        raise BundleError(f"{name} is {what}, and a signed bundle has none; get it from where it was signed.")
    if entry.is_file():
        yield entry
        return
    for inner in sorted(entry.iterdir()):
        yield from _below(inner, bundle)


def _facts(path: Path) -> Facts:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
