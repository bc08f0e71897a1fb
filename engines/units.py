"""Where an adapter's factors are: a stretch of units, see basert.manifest.Lora. Knows nothing else."""

from __future__ import annotations

from typing import NamedTuple


class Units(NamedTuple):
    """An empty stretch stands for no adapter."""

    first: int = 0
    end: int = 0

    def covering(self, other: Units) -> Units:
        """The smallest stretch that holds both."""
        if not self.end or not other.end:
            return self if self.end else other
        return Units(min(self.first, other.first), max(self.end, other.end))
