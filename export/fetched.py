"""What every source gives: where a checkpoint lies on this machine's disk, and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from basert.manifest import Source
from export.ctranslate2 import MODEL, is_ctranslate2
from export.encoders.settings import module_files, transformer_folder
from export.workspace import checkpoint_files, sha256_of


@dataclass(frozen=True)
class Fetched:
    """A checkpoint on this machine's disk, as its source has it."""

    path: Path  # a Hugging Face folder, or one GGUF file
    source: Source


def folder_hash(folder: Path) -> str:
    """Over everything in a checkpoint folder that can change what is exported."""
    inner = transformer_folder(folder)
    more = checkpoint_files(inner) if inner != folder else []
    more += [folder / MODEL] if is_ctranslate2(folder) else []
    return sha256_of([*checkpoint_files(folder), *more, *module_files(folder)])
