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
    GOLDEN,
    MANIFEST,
    PARITY,
    SCHEMA,
    TOKENIZER,
    TOKENIZER_CONFIG,
    File,
    Golden,
    Graph,
    Manifest,
    ParityNumbers,
    Provenance,
    Source,
    write_json,
)
from basert.progress import Show
from export.bundle_text import SpecialTokens, read_generation, read_special_tokens
from export.graph import DATA, GRAPH, Decoder
from export.passes.prefill import FUSED
from export.steps import LIBRARIES
from export.workspace import link_or_copy, sha256_of

BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64]
CHUNK_BUCKETS = [32, 64, 128, 256, 512]
DRAFT_BUCKETS = [2**n for n in range(1, FUSED.bit_length())]  # with an int8 cache


@dataclass(frozen=True)
class Parts:
    """What the steps of an export left, and what was asked for."""

    name: str
    checkpoint: Path  # Hugging Face folder
    graph: Path  # folder with GRAPH and DATA
    decoder: Decoder
    golden: Golden
    parity: ParityNumbers
    source: Source
    variant: str
    variant_reason: str
    slots: int
    inputs: str


def write_bundle(parts: Parts, folder: Path, show: Show) -> Manifest:
    """Fill the empty folder with the bundle's files, the manifest last."""
    (folder / "graphs").mkdir()
    for name in (GRAPH, DATA):
        link_or_copy(parts.graph / name, folder / "graphs" / name)  # the step's folder goes away next
    tokens = read_special_tokens(parts.checkpoint)
    shutil.copyfile(parts.checkpoint / TOKENIZER, folder / TOKENIZER)
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(tokens.named, indent=2, ensure_ascii=False) + "\n")
    if (parts.checkpoint / CHAT_TEMPLATE).is_file():
        shutil.copyfile(parts.checkpoint / CHAT_TEMPLATE, folder / CHAT_TEMPLATE)
    write_json(folder / GENERATION, read_generation(parts.checkpoint))
    write_json(folder / PARITY, parts.parity)
    write_json(folder / GOLDEN, parts.golden)
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
    decoder = parts.decoder
    path = f"graphs/{GRAPH}"
    return Manifest(
        schema=SCHEMA,
        name=parts.name,
        family="decoder",
        variant=parts.variant,
        variant_reason=parts.variant_reason,
        vocab_size=decoder.vocab_size,
        max_context=decoder.max_context,
        slots=parts.slots,
        eos_token_ids=[token for token in tokens.eos if 0 <= token < decoder.vocab_size],
        bos_token_id=tokens.bos,
        has_chat_template=(folder / CHAT_TEMPLATE).is_file(),
        kv_cache=decoder.kv_cache,
        graphs=[_graph(decoder, path)],
        files=files,
        parity=parts.parity,
        provenance=Provenance(
            source=parts.source,
            architecture=decoder.architecture,
            exporter=decoder.exporter,
            basert=__version__,
            versions={name: version(name) for name in LIBRARIES},
            created=int(time.time()),
            host=_cpu(),
            inputs=parts.inputs,
        ),
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


def _graph(decoder: Decoder, path: str) -> Graph:
    drafts = DRAFT_BUCKETS if decoder.kv_cache.dtype == "int8" else []
    return Graph(
        "decoder", "cpu", path, decoder.inputs, decoder.outputs, BATCH_BUCKETS, CHUNK_BUCKETS, drafts
    )
