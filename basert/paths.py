"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

from basert.errors import ConfigError


def expand(text: str | Path) -> Path:
    """The path with its ~ filled in. Raises ConfigError where that home folder is not known."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text}: no such home folder is known; write it out, or set HOME.") from None
