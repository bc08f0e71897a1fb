"""From the finished steps of an export to a bundle in the store: written beside its place, renamed last."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from basert import __version__
from basert.manifest import (
    CHAT_TEMPLATE,
    GENERATION,
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    TOKENIZER_CONFIG,
    File,
    Manifest,
    Provenance,
    Source,
    write_json,
)
from basert.progress import Show
from export.bundle_text import SpecialTokens, read_generation, read_special_tokens
from export.family import Contents
from export.steps import LIBRARIES
from export.workspace import link_or_copy, sha256_of


@dataclass(frozen=True)
class Parts:
    """What the steps of an export left, and what was asked for."""

    name: str
    checkpoint: Path  # Hugging Face folder
    contents: Contents
    source: Source
    variant: str
    variant_reason: str
    inputs: str


def write_bundle(parts: Parts, folder: Path, show: Show) -> Manifest:
    """Fill the empty folder with the bundle's files, the manifest last."""
    for path, made in parts.contents.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(made, folder / path)  # the step's folder goes away next
    tokens = read_special_tokens(parts.checkpoint)
    shutil.copyfile(parts.checkpoint / TOKENIZER, folder / TOKENIZER)
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(tokens.named, indent=2, ensure_ascii=False) + "\n")
    if (parts.checkpoint / CHAT_TEMPLATE).is_file():
        shutil.copyfile(parts.checkpoint / CHAT_TEMPLATE, folder / CHAT_TEMPLATE)
    write_json(folder / GENERATION, read_generation(parts.checkpoint))
    for path, document in parts.contents.documents.items():
        write_json(folder / path, document)
    manifest = _manifest(parts, folder, tokens, _files(folder, show))
    write_json(folder / MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """An empty folder to write the bundle into; it takes the place of `target` when the block ends well.

    A bundle that was there is moved aside first and removed last: whatever happens, one of the two is whole.
    """
    new, old = _beside(target, "new"), _beside(target, "old")
    clear(target)
    new.mkdir(parents=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
    finally:
        clear(target)


def clear(target: Path) -> None:
    """Remove what a killed export left beside `target`, and put back a bundle that it had moved aside."""
    new, old = _beside(target, "new"), _beside(target, "old")
    if old.exists() and not target.exists():
        old.rename(target)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)


def _manifest(parts: Parts, folder: Path, tokens: SpecialTokens, files: list[File]) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name=parts.name,
        variant=parts.variant,
        variant_reason=parts.variant_reason,
        bos_token_id=tokens.bos,
        has_chat_template=(folder / CHAT_TEMPLATE).is_file(),
        files=files,
        provenance=Provenance(
            source=parts.source,
            architecture=parts.contents.architecture,
            exporter=parts.contents.exporter,
            basert=__version__,
            versions={name: version(name) for name in LIBRARIES},
            created=int(time.time()),
            host=_cpu(),
            inputs=parts.inputs,
        ),
        **parts.contents.fields,
    )


def _files(folder: Path, show: Show) -> list[File]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in paths]
    files = []
    for count, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        files.append(File(str(path.relative_to(folder)), sha256_of([path]), size))
        show(sum(sizes[: count + 1]), sum(sizes))
    return files


def _beside(target: Path, what: str) -> Path:
    return target.parent / f".{target.name}.{what}"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.machine()
