"""What a server must tell to be measured beside the others. Knows no particular server and starts nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from basert.errors import BasertError


class PeerFailed(BasertError):
    """A peer cannot be installed, started or asked; the report goes on without it."""


@dataclass(frozen=True)
class Model:
    """The one model that all serve. What it was exported from is fetched when a peer first asks for it."""

    name: str  # what clients call it
    bundle: Path
    digest: str  # of the source: names what is made of it
    family: str  # of its manifest
    source: Callable[[], Path]  # a GGUF file, or a checkpoint folder; raises ExportError
    checkpoint: Callable[[], Path]  # the same as a Hugging Face folder in float32; raises ExportError

    def gguf(self) -> Path:
        """Raises PeerFailed where the source is none."""
        path = self.source()
        if not path.is_file():
            raise PeerFailed("it serves GGUF files, and this bundle was not exported from one.")
        return path


@dataclass(frozen=True)
class Setup:
    """A peer as it stands on this disk, and what it shall serve."""

    room: Path  # what `install` filled
    converted: Path  # what `convert` filled, from this model
    model: Model
    threads: int
    streams: int  # sequences at once, at most
    context: int  # tokens of prompt and answer together, at most


class Peer(ABC):
    """One server. Folders given to it are its own, empty, and kept for the next run once it has returned."""

    name: ClassVar[str]  # on the command line and in the report
    home: ClassVar[str] = (
        ""  # the folder of its installation, shared by those that name the same; else `name`
    )
    family: ClassVar[str] = "decoder"  # of the models that it serves, as Manifest.family has it
    recipe: ClassVar[str]  # changes whenever install or convert would make something else
    notes: ClassVar[tuple[str, ...]]  # how it was tuned, and where it gets less than was asked for
    ready_path: ClassVar[str] = "/v1/models"
    start_seconds: ClassVar[float] = 120.0  # then it counts as failed

    def install(self, room: Path) -> None:  # noqa: B027  (nothing is a fine thing to need)
        """Fill `room` with all that running it takes. Raises PeerFailed with the reason."""

    def convert(self, room: Path, model: Model, into: Path) -> None:  # noqa: B027
        """Make of `model` what this peer serves, if it takes none of its forms. Raises PeerFailed."""

    @abstractmethod
    def versions(self, room: Path) -> dict[str, str]:
        """Of the packages that matter. Raises PeerFailed."""

    @abstractmethod
    def command(self, setup: Setup, port: int) -> list[str]:
        """What serves OpenAI's completions, or embeddings, on 127.0.0.1:port. Raises PeerFailed."""

    def environment(self, setup: Setup) -> Mapping[str, str]:
        """Variables besides those of this process."""
        return {}
