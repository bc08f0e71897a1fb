"""The parity gate: an exported slot graph against transformers in fp32, on real text."""

from __future__ import annotations

from pathlib import Path

from basert.manifest import ParityNumbers
from basert.progress import Show


def measure(checkpoint: Path, graph: Path, progress: Show, *, threads: int = 0) -> ParityNumbers:
    """Run the shipped evaluation text through transformers and through the slot graph in folder `graph`."""
    raise NotImplementedError


def check(variant: str, numbers: ParityNumbers) -> None:
    """Raises ParityError naming the number and its limit when `numbers` are over the variant's LIMITS."""
    raise NotImplementedError
