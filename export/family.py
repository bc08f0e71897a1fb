"""What an export does in its own way for decoders and for encoders: one interface, a class for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from export.choice import Choice
from export.steps import Step, Steps

DEFAULT_SLOTS = 16


@dataclass(frozen=True)
class ExportRequest:
    source: str  # as export.sources takes it
    name: str | None = None  # of the bundle; None: after the source
    variant: str = "auto"
    max_context: int | None = None  # tokens: of a prompt with its answer; of an encoder's input
    kv_bits: str = "auto"  # of decoders
    slots: int = DEFAULT_SLOTS  # of decoders
    buckets: str = "auto"  # of encoders: as export.encoders.buckets reads it
    force: bool = False  # run every step again, and replace a bundle that came from another source


@dataclass(frozen=True)
class Contents:
    """What a family puts into a bundle."""

    files: Mapping[str, Path]  # graphs: where in the bundle -> where the step left it
    documents: Mapping[str, msgspec.Struct]  # where in the bundle -> what to write there
    architecture: str
    exporter: str
    fields: Mapping[str, Any]  # of the manifest, those that the family decides


class Family(Protocol):
    """The steps between a checkpoint and a bundle's contents. Each runs once, however often asked for."""

    def __init__(self, request: ExportRequest, steps: Steps, checkpoint: Step) -> None: ...

    @staticmethod
    def refuse(request: ExportRequest) -> None:
        """Raises ExportError for what cannot be, before any work."""

    def choose(self) -> Choice:
        """The variants to try, in order."""

    def compile(self, variant: str) -> Step:
        """The variant's graph."""

    def parity(self, variant: str) -> Any:
        """How close the compiled variant is to the checkpoint."""

    def check(self, variant: str, parity: Any) -> None:
        """Raises ParityError when that is not close enough."""

    def contents(self, variant: str, parity: Any) -> Contents:
        """What the bundle is to hold, golden cases included."""
