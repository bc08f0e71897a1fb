"""The export, step by step: fetch, checkpoint, what the family does, write.

Each step leaves files for the next (export/steps.py); what they do is in the modules they call. An export
that is cut off leaves the store as it was.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from basert import store
from basert.adapter import is_adapter
from basert.errors import BundleError, ExportError, ParityError
from basert.manifest import Manifest, Source, read_manifest
from basert.progress import note, task
from engines.sessions.instructions import integer_products
from export import sources
from export.bundle import Parts, publishing, write_bundle
from export.decoders import DecoderFamily
from export.encoders.family import EncoderFamily
from export.encoders.task import CLASSIFICATION, DECODER, EMBEDDING, SPEECH, task_of
from export.family import Contents, ExportRequest, Family
from export.fetched import Fetched
from export.prepare import prepare
from export.speech.family import SpeechFamily
from export.steps import Step, Steps, code_key, forget_old_work, key_of, lock_of
from export.workspace import cache_root, disk_full_is_an_export_error, lock, require_space

__all__ = ["ExportRequest", "Exported", "run"]

FAMILIES: dict[str, type[Family]] = {
    DECODER: DecoderFamily,
    EMBEDDING: EncoderFamily,
    CLASSIFICATION: EncoderFamily,
    SPEECH: SpeechFamily,
}


@dataclass(frozen=True)
class Exported:
    bundle: Path
    manifest: Manifest
    fresh: bool  # False: the bundle was there already, made from the same inputs


def run(request: ExportRequest) -> Exported:
    """Export into the store. Raises ExportError (ParityError) with the mend; the store is then as it was."""
    target = store.bundle_path(request.name or sources.default_name(request.source))
    works = cache_root() / "work"
    work = works / key_of([str(target)])[:16]
    busy = f"another export of {target.name} is running; wait until it is done, or choose another --name."
    with disk_full_is_an_export_error(), lock(lock_of(work), refuse=busy):
        forget_old_work(works)
        _check_store(target)
        fetched = sources.fetch(request.source)
        export = _Export(request, target, fetched, Steps(work))
        there = _bundle_at(target)
        if there and there.provenance.inputs == export.inputs and not request.force:
            return Exported(target, there, fresh=False)
        _check_replaceable(there, fetched, request)
        return Exported(target, export.run(), fresh=True)


class _Export:
    """The steps from a fetched source to its bundle."""

    def __init__(self, request: ExportRequest, target: Path, fetched: Fetched, steps: Steps) -> None:
        self.request, self.target, self.fetched, self.steps = request, target, fetched, steps
        self.family_class = FAMILIES[task_of(fetched.path)]
        self.family_class.refuse(request)  # what cannot be is refused before any work
        self.origin = str(fetched.source.sha256)
        settings = [self.origin, request.variant, str(integer_products()), request.kv_bits]
        settings += [str(request.max_context), str(request.slots), request.buckets]
        self.inputs = key_of([*settings, code_key()])

    def run(self) -> Manifest:
        if self.request.force:
            self.steps.clear()
        checkpoint = self.steps.run(
            "checkpoint", [self.origin], lambda out, _: prepare(self.fetched.path, out)
        )
        family = self.family_class(self.request, self.steps, checkpoint)
        variant, reason, contents = self.best(family)
        manifest = self.write(checkpoint, variant, reason, contents)
        self.steps.clear()
        return manifest

    def best(self, family: Family) -> tuple[str, str, Contents]:
        """The first of the choice's variants that passes the gate, why it was chosen, and what it makes.

        Raises ParityError when the last one does not.
        """
        choice = family.choose()
        reason = choice.reason
        for variant in choice.variants:
            parity = family.parity(variant)
            try:
                family.check(variant, parity)
            except ParityError as error:
                if variant == choice.variants[-1]:
                    raise
                note(str(error))
                reason += f"; {variant} does not pass the parity gate"
            else:
                return variant, reason, family.contents(variant, parity)
        raise AssertionError("a choice names at least one variant")

    def write(self, checkpoint: Step, variant: str, reason: str, contents: Contents) -> Manifest:
        parts = Parts(
            name=self.target.name,
            checkpoint=checkpoint.folder,
            contents=contents,
            source=self.fetched.source,
            variant=variant,
            variant_reason=reason,
            inputs=self.inputs,
        )
        size = sum(path.stat().st_size for path in contents.files.values())
        require_space(self.target.parent, size, f"the bundle {self.target.name}")
        with task("write", unit="B") as show, publishing(self.target) as folder:
            return write_bundle(parts, folder, show)


def _check_store(target: Path) -> None:
    """Before hours of work: can a bundle be written there at all?"""
    if is_adapter(target):
        raise ExportError(f"the store has an adapter {target.name}; choose another --name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".probe", dir=target.parent):
            pass
    except OSError as error:
        raise ExportError(
            f"the model store {target.parent} cannot be written ({error.strerror}):"
            " set BASERT_HOME to a folder that you may write."
        ) from None


def _bundle_at(target: Path) -> Manifest | None:
    """The bundle that is there; one that cannot be read is as good as none."""
    try:
        return read_manifest(target)
    except BundleError:
        return None


def _check_replaceable(there: Manifest | None, fetched: Fetched, request: ExportRequest) -> None:
    """An export replaces an older one of the same source; anything else only when told to."""
    if there is None or request.force or _origin(there.provenance.source) == _origin(fetched.source):
        return
    raise ExportError(
        f"the store has a bundle {there.name} from another source ({there.provenance.source.uri}):"
        " choose another --name, or replace it with --force."
    )


def _origin(source: Source) -> str:
    """The source without its version or revision."""
    return re.split("@|==", source.uri)[0]
