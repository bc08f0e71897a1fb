"""The way from the command line into the export room, whose libraries a serving host need not have."""

from __future__ import annotations

import importlib
from types import ModuleType

from basert.errors import ConfigError


def export_room(module: str) -> ModuleType:
    """`export.<module>`, imported now. Raises ConfigError when the export extra is not installed."""
    try:
        return importlib.import_module(f"export.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"this needs basert's export extra ({error.name} is not installed): pip install 'basert[export]'."
        ) from error
