"""export-lora: a PEFT folder and an exported base become an adapter's bundle in the store.

Compared with transformers and peft on the base's own checkpoint, as an export is; over the limits nothing is
written. The base's bundle is read only.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from basert import __version__, store
from basert.adapter import ADAPTER, FACTORS, SCHEMA, Adapter, is_adapter, lora_of, read_adapter
from basert.errors import BundleError, ExportError
from basert.manifest import File, Lora, Manifest, ParityNumbers, read_manifest, write_json
from basert.paths import expand
from basert.progress import task
from export import prose, sources
from export.bundle import publishing
from export.checkpoint import first_line, token_ids
from export.graph import Decoder
from export.lora.factors import factors_of, units_of
from export.lora.graph import LoraRunner
from export.lora.peft_folder import PeftAdapter, read_peft
from export.parity import check, compare, sequences_of
from export.passes.folds import read_folds
from export.prepare import prepare
from export.reference import Reference
from export.workspace import cache_root, disk_full_is_an_export_error, require_space, sha256_of

SEQUENCES = 3  # of real text that are compared
LIBRARIES = ("torch", "transformers", "peft", "onnxruntime")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AdapterRequest:
    folder: str  # as PEFT saved it
    base: str  # a bundle's name in the store, or its folder
    name: str | None = None  # None: after the folder
    force: bool = False  # replace an adapter that came from another folder


def run(request: AdapterRequest) -> tuple[Path, Adapter]:
    """Export into the store. Raises ExportError (ParityError), BundleError with the mend."""
    folder = expand(request.folder)
    base = store.find(request.base)
    manifest = read_manifest(base)
    lora = lora_of(manifest)
    peft = read_peft(folder)
    target = store.bundle_path(request.name or sources.default_name(str(folder)))
    _check_replaceable(target, peft, request)
    with disk_full_is_an_export_error():
        factors = factors_of(peft, manifest.name, lora, read_folds(base / lora.folds))
        parity = _measure(base, manifest, lora, peft, factors)
        check(manifest.variant, parity)
        return target, _write(target, manifest, lora, peft, factors, parity)


def _check_replaceable(target: Path, peft: PeftAdapter, request: AdapterRequest) -> None:
    """Nothing but an older export of the same folder is replaced, unless told to."""
    if not target.exists():
        return
    if not is_adapter(target):
        raise ExportError(f"the store has a model {target.name}; choose another --name.")
    try:
        there = read_adapter(target).source.uri
    except BundleError:
        return  # as good as none
    if there != peft.source.uri and not request.force:
        raise ExportError(
            f"the store has an adapter {target.name} from another folder ({there}): choose another --name,"
            " or replace it with --force."
        )


def _measure(
    base: Path, manifest: Manifest, lora: Lora, peft: PeftAdapter, factors: Mapping[str, Array]
) -> ParityNumbers:
    work = cache_root() / "work"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lora-", dir=work) as room:
        checkpoint = _checkpoint(manifest, Path(room))
        decoder = _decoder(manifest)
        sequences = sequences_of(token_ids(checkpoint, prose.evaluation()), decoder)[:SEQUENCES]
        longest = max(len(part) for part in sequences)
        runner = LoraRunner(
            base / "graphs",
            lora.layers,
            factors,
            slots=len(sequences),
            max_context=longest,
            decoder=decoder,
        )
        with task("parity") as show:
            reference = PeftReference(checkpoint, peft.folder)
            return compare(lambda _, ids: reference.logits(ids), runner, sequences, show)


class PeftReference(Reference):
    """A checkpoint with its adapter, as peft applies it."""

    def __init__(self, checkpoint: Path, adapter: Path) -> None:
        from peft import PeftModel

        super().__init__(checkpoint)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # of names that peft uses, and transformers drops
                self._model = PeftModel.from_pretrained(self._model, adapter, local_files_only=True).eval()
        except Exception as error:  # peft's, torch's and safetensors' own
            raise ExportError(f"peft cannot load {adapter}: {first_line(error)}.") from error


def _checkpoint(base: Manifest, room: Path) -> Path:
    """What the base was exported from, fetched again, in the form that every step of an export reads."""
    source = base.provenance.source
    fetched = sources.fetch(source.uri)
    if fetched.source.sha256 != source.sha256:
        raise ExportError(
            f"{source.uri} has changed since {base.name} was exported from it; export {base.name} again."
        )
    with task("checkpoint"):
        prepare(fetched.path, room)
    return room


def _decoder(base: Manifest) -> Decoder:
    """What the runner of a bundle's graph wants to know."""
    [graph] = [graph for graph in base.graphs if graph.role == "decoder-lora"][:1]
    return Decoder(
        architecture=base.provenance.architecture,
        model_type="",
        exporter=base.provenance.exporter,
        vocab_size=base.vocab_size,
        max_context=base.max_context,
        window=None,
        kv_cache=base.kv_cache,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _write(
    target: Path,
    base: Manifest,
    lora: Lora,
    peft: PeftAdapter,
    factors: Mapping[str, Array],
    parity: ParityNumbers,
) -> Adapter:
    require_space(
        target.parent, sum(array.nbytes for array in factors.values()), f"the adapter {target.name}"
    )
    with publishing(target) as folder:
        np.savez(folder / FACTORS, **factors)  # type: ignore[arg-type]
        file = File(FACTORS, sha256_of([folder / FACTORS]), (folder / FACTORS).stat().st_size)
        adapter = Adapter(
            schema=SCHEMA,
            name=target.name,
            base=base.name,
            base_hash=lora.base,
            rank=peft.rank,
            units=units_of(peft, lora),
            alpha=peft.alpha,
            scaled="alpha / sqrt(r)" if peft.rslora else "alpha / r",
            modules=peft.modules,
            source=peft.source,
            created=int(time.time()),
            basert=__version__,
            versions={name: version(name) for name in LIBRARIES},
            parity=parity,
            files=[file],
        )
        write_json(folder / ADAPTER, adapter)
    return adapter
