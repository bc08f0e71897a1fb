"""Where adapters' factors are: stretches of units, see basert.manifest.Lora. Knows nothing else.

A stretch's length is a power of two, and it begins at a multiple of it. So does one that is read for several:
then a row gets the same bits whatever is read beside its own (export.passes.lora).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Units(NamedTuple):
    """An empty stretch stands for no adapter."""

    first: int = 0
    end: int = 0

    @property
    def length(self) -> int:
        return self.end - self.first


def covering(stretches: Iterable[Units]) -> Units:
    """What has to be read for all of them; empty for none."""
    taken = [units for units in stretches if units.end]
    if not taken:
        return Units()
    first = min(units.first for units in taken)
    return Units(first - first % max(units.length for units in taken), max(units.end for units in taken))


def free_stretch(taken: Iterable[Units], length: int, room: int) -> Units | None:
    """The first one of this length that nobody has, of `room` units; None when there is none."""
    taken = list(taken)
    for first in range(0, room - length + 1, length):
        if all(units.end <= first or first + length <= units.first for units in taken):
            return Units(first, first + length)
    return None
