"""The door to the export room, whose libraries a serving host need not have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from basert.errors import ConfigError


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
