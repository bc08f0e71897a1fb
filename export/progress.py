"""What a long export step tells its caller."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""progress(done, total): called from time to time; units are the step's own (tokens, layers)."""


def silent(done: int, total: int) -> None:
    """A Progress for callers that do not care."""
