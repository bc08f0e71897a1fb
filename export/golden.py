"""Golden cases: what the exported graph itself answered after it passed parity."""

from __future__ import annotations

from pathlib import Path

from basert.manifest import Golden


def make_golden(checkpoint: Path, graph: Path, variant: str) -> Golden:
    """Two or three short cases from the slot graph in folder `graph`; `checkpoint` gives the tokenizer."""
    raise NotImplementedError
