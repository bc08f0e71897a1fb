"""Bundles and adapters as the supervisor finds them: by a name in the store, never by a client's path."""

from __future__ import annotations

import asyncio
import difflib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from basert import adapter, signing, store
from basert.adapter import FACTORS, Adapter, check_base
from basert.errors import BasertError, BundleError, ConfigError, InvalidRequest, ModelNotFound
from basert.manifest import MANIFEST, Manifest, check_whole, digest, read_manifest
from basert.messages import AdapterInfo

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was when it was looked at."""

    path: Path
    manifest: Manifest
    digest: str


class Catalogue:
    """What can be loaded: the store, and whatever the server was started with, wherever it lies."""

    def __init__(self, signed_with: Path | None) -> None:
        """signed_with: the public key that fits all signatures, if bundles have to be signed."""
        self._signed_with = signed_with
        self._started: dict[str, Path] = {}

    def add(self, path: Path, *names: str) -> None:
        """The server was started with this bundle, so called."""
        self._started |= dict.fromkeys(names, path)

    async def read(self, name: str) -> Bundle:
        """Raises as `find` and `look`."""
        return await asyncio.to_thread(lambda: self.look(self._started.get(name) or find(name)))

    def look(self, path: Path) -> Bundle:
        """Raises BundleError for one that is not whole, or not as it was signed; ConfigError for a key that
        is none."""
        if self._signed_with is not None:
            signing.verify(path, self._signed_with)
        return read(path)

    def number(self, name: str) -> int | None:
        """Its place among what the server was started with."""
        paths = list(dict.fromkeys(self._started.values()))
        return paths.index(self._started[name]) if name in self._started else None


def read(path: Path) -> Bundle:
    """Raises BundleError for one that is not whole."""
    manifest = read_manifest(path)
    check_whole(path, manifest)
    return Bundle(path, manifest, digest(path))


def find(name: str) -> Path:
    """Where the store has the bundle of that name. Raises ModelNotFound, or InvalidRequest for no name."""
    try:
        path = store.bundle_path(name)
    except ConfigError as error:
        raise InvalidRequest(error.message, param="model") from None
    known = [bundle.name for bundle in store.bundles()]
    if name not in known:
        raise ModelNotFound(_missing("bundle", name, known), param="model")
    return path


def keep(bundle: Bundle, folder: Path) -> None:
    """Copy what HTTP workers read of it, all but graphs and goldens. Raises BundleError.

    So each of them, whenever it starts, reads what the engines run, also when the bundle was exported again.
    """
    names = [file.path for file in bundle.manifest.files if "/" not in file.path]
    try:
        folder.mkdir(parents=True)
        for name in (MANIFEST, *names):
            shutil.copyfile(bundle.path / name, folder / name)
        changed = digest(bundle.path) != bundle.digest
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BundleError(f"{bundle.path} cannot be copied to {folder}: {error.strerror}.") from None
    if changed:
        shutil.rmtree(folder)
        raise BundleError(f"{bundle.path} was exported again just now; try again.")


def read_adapter(path: Path, signed_with: Path | None) -> tuple[Adapter, AdapterInfo]:
    """An adapter as it is now. Raises as `read`."""
    if signed_with is not None:
        signing.verify(path, signed_with)
    found = adapter.read_adapter(path)
    return found, AdapterInfo(found.name, str(path), adapter.digest(path), found.created)


def find_adapter(name: str) -> Path:
    """Where the store has it. Raises InvalidRequest for what is no name, ModelNotFound."""
    try:
        path = store.bundle_path(name)
    except ConfigError as error:
        raise InvalidRequest(error.message, param="lora") from None
    known = [one.name for one in store.adapters()]
    if name not in known:
        raise ModelNotFound(_missing("adapter", name, known), param="lora", code="lora_not_found")
    return path


def usable(having: Sequence[AdapterInfo], base: Manifest, signed_with: Path | None) -> list[AdapterInfo]:
    """Those that fit a base, as they are now; the log says why others do not."""
    found = []
    for info in having:
        try:
            told, now = read_adapter(Path(info.bundle), signed_with)
            check_base(told, base)
        except BasertError as error:
            _log.warning("%s does not keep the adapter %s: %s", base.name, info.name, error.message)
        else:
            found.append(now)
    return found


def factor_bytes(info: AdapterInfo) -> int:
    """Of its file; 0 when that is gone."""
    try:
        return (Path(info.bundle) / FACTORS).stat().st_size
    except OSError:
        return 0


def _missing(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known) or 'none'}."
    return f"This server's store has no {what} {name!r}; {hint}"
