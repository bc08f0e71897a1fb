"""The table of variants: which passes make fp32, w8a8 and int4 of the fp32 slot graph, and which one `auto` means."""

from __future__ import annotations

from pathlib import Path

from export.graph import Decoder
from basert.progress import Show

VARIANTS = ("fp32", "w8a8", "int4")


def choose_variant(asked: str) -> tuple[str, str]:
    """(variant, reason): `auto` is decided for this machine's CPU, anything else is ("…", "asked for")."""
    raise NotImplementedError


def needs_calibration(variant: str) -> bool:
    raise NotImplementedError


def build_variant(variant: str, slot_graph: Path, calibration: Path | None, out: Path, progress: Show) -> Decoder:
    """From the fp32 slot graph in folder `slot_graph`, write the variant's graph (and description) into folder `out`."""
    raise NotImplementedError
