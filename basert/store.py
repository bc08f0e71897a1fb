"""The model store: a folder of bundles and adapters, one subfolder each. Knows names and paths, not contents.

$BASERT_HOME, else $XDG_DATA_HOME/basert/models, else ~/.local/share/basert/models. Names that begin with a
dot are bundles being written or put aside: they are never listed.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basert.adapter import ADAPTER
from basert.errors import BundleError, ConfigError
from basert.manifest import MANIFEST
from basert.paths import expand

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def store_root() -> Path:
    home = os.environ.get("BASERT_HOME")
    if home:
        return expand(home).absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return expand(data).absolute() / "basert" / "models"


def bundle_path(name: str) -> Path:
    """Where the bundle of that name lives or would live. Raises ConfigError for an unsafe name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a bundle: use letters, digits, dot, dash and underscore, at most 100,"
            " beginning with a letter or digit."
        )
    return store_root() / name


def bundles() -> list[Path]:
    """Every whole bundle of the store, by name."""
    return [entry for entry in _entries() if (entry / MANIFEST).is_file()]


def _entries() -> list[Path]:
    try:
        entries = sorted(store_root().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BundleError(f"the model store {store_root()} cannot be read: {error.strerror}.") from None
    return [entry for entry in entries if _NAME.fullmatch(entry.name)]


def find(name_or_path: str) -> Path:
    """A bundle by its name in the store, else by its folder. Raises BundleError that names what is near."""
    if _NAME.fullmatch(name_or_path) and (store_root() / name_or_path / MANIFEST).is_file():
        return store_root() / name_or_path
    path = expand(name_or_path)
    if (path / MANIFEST).is_file():
        return path.absolute()
    if path.is_dir():
        raise BundleError(
            f"{path} is no bundle (it has no {MANIFEST}); make one with `basert export {path}`."
        )
    raise BundleError(missing(name_or_path))


def adapters() -> list[Path]:
    """Every adapter of the store, by name."""
    return [entry for entry in _entries() if (entry / ADAPTER).is_file()]


def is_adapter_name(name_or_path: str) -> bool:
    """Whether it names an adapter: one of the store, or a folder."""
    return any((path / ADAPTER).is_file() for path in (store_root() / name_or_path, expand(name_or_path)))


def find_adapter(name_or_path: str) -> Path:
    """An adapter by its name in the store, else by its folder. Raises BundleError that names what is near."""
    for path in (store_root() / name_or_path, expand(name_or_path)):
        if (path / ADAPTER).is_file():
            return path.absolute()
    raise BundleError(missing_adapter(name_or_path))


def missing_adapter(name: str) -> str:
    """The sentence for an adapter that is not there: what is near, or how to make it."""
    known = [adapter.name for adapter in adapters()]
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"there is no adapter {name!r} in {store_root()}; did you mean {' or '.join(near)}?"
    there = f"it has {', '.join(known)}" if known else "it has none"
    mend = f"`basert export-lora FOLDER --base BUNDLE --name {name}` makes one"
    return f"there is no adapter {name!r} in {store_root()} ({there}); {mend}."


def missing(name: str) -> str:
    """The sentence for a bundle that is not there: what is near, or how to make it."""
    known = [bundle.name for bundle in bundles()]
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"there is no bundle {name!r} in {store_root()}; did you mean {' or '.join(near)}?"
    there = f"it has {', '.join(known)}" if known else "it is empty"
    mend = f"`basert export SOURCE --name {name}` makes one"
    return f"there is no bundle {name!r} in {store_root()} ({there}); {mend}."


@contextmanager
def hold(bundle: Path) -> Iterator[None]:
    """What an engine does while it runs a bundle, so that `basert remove` can tell (a shared file lock)."""
    with (bundle / MANIFEST).open("rb") as manifest:
        fcntl.flock(manifest, fcntl.LOCK_SH)
        yield


def in_use(bundle: Path) -> bool:
    """Whether some process of this machine holds the bundle."""
    with (bundle / MANIFEST).open("rb") as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
