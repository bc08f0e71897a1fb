"""The export, step by step: fetch, checkpoint, graph, a variant, speed, parity, golden, write.

Each step leaves files for the next (export/steps.py); what they do is in the modules they call. An export
that is cut off leaves the store as it was.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from basert import store
from basert.errors import BundleError, ExportError, ParityError
from basert.manifest import GOLDEN, PARITY, Golden, Manifest, ParityNumbers, Source, read_manifest, write_json
from basert.progress import Show, note, task
from engines.sessions.instructions import integer_products
from export import sources
from export.bundle import Parts, publishing, write_bundle
from export.checkpoint import read_config
from export.choice import Choice, check_variant, choose
from export.compiling import Compiler
from export.fetched import Fetched
from export.golden import make_golden
from export.graph import decoder_from_checkpoint, read_decoder
from export.parity import check, measure
from export.positions import longest_context
from export.prepare import prepare, weight_bytes
from export.speed import Speed, measure_speeds
from export.steps import Step, Steps, code_key, forget_old_work, key_of, lock_of
from export.variants import choose_cache_bits
from export.workspace import cache_root, disk_full_is_an_export_error, lock, require_space, size_of

SPEEDS = "speeds.json"
DEFAULT_SLOTS = 16
DEFAULT_CONTEXT = 8192  # tokens; what a checkpoint was trained for, if that is less


@dataclass(frozen=True)
class ExportRequest:
    source: str  # as export.sources takes it
    name: str | None = None  # of the bundle; None: after the source
    variant: str = "auto"
    max_context: int | None = None
    kv_bits: str = "auto"
    slots: int = DEFAULT_SLOTS
    force: bool = False  # run every step again, and replace a bundle that came from another source


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


@dataclass(frozen=True)
class _Passed:
    """A variant that is near enough to the checkpoint."""

    variant: str
    reason: str  # why it was chosen
    compiled: Step
    parity: ParityNumbers


class _Export:
    """The steps from a fetched source to its bundle."""

    def __init__(self, request: ExportRequest, target: Path, fetched: Fetched, steps: Steps) -> None:
        self.request, self.target, self.fetched, self.steps = request, target, fetched, steps
        check_variant(request.variant)
        choose_cache_bits(request.kv_bits, request.variant)  # what cannot be is refused before any work
        self.origin = str(fetched.source.sha256)
        settings = [self.origin, request.variant, str(integer_products()), request.kv_bits]
        settings += [str(request.max_context), str(request.slots)]
        self.inputs = key_of([*settings, code_key()])

    def run(self) -> Manifest:
        if self.request.force:
            self.steps.clear()
        checkpoint = self.checkpoint()
        graph = self.graph(checkpoint)
        compiler = Compiler(self.steps, checkpoint.folder, graph, self.request.kv_bits)
        passed = self.best(self.choose(checkpoint, compiler), checkpoint, compiler)
        golden = self.golden(checkpoint, passed)
        manifest = self.write(checkpoint, passed, golden)
        self.steps.clear()
        return manifest

    def choose(self, checkpoint: Step, compiler: Compiler) -> Choice:
        def measure(variants: tuple[str, ...]) -> dict[str, Speed]:
            return self.speeds({variant: compiler.compile(variant) for variant in variants})

        return choose(self.request.variant, weight_bytes(checkpoint.folder), measure)

    def best(self, choice: Choice, checkpoint: Step, compiler: Compiler) -> _Passed:
        """The first of the choice's variants that passes the gate; ParityError when the last one does not."""
        reason = choice.reason
        for variant in choice.variants:
            compiled = compiler.compile(variant)
            parity = self.parity(checkpoint, compiled)
            try:
                check(variant, parity)
            except ParityError as error:
                if variant == choice.variants[-1]:
                    raise
                note(str(error))
                reason += f"; {variant} does not pass the parity gate"
            else:
                return _Passed(variant, reason, compiled, parity)
        raise AssertionError("a choice names at least one variant")

    def checkpoint(self) -> Step:
        return self.steps.run("checkpoint", [self.origin], lambda out, _: prepare(self.fetched.path, out))

    def graph(self, checkpoint: Step) -> Step:
        longest = longest_context(read_config(checkpoint.folder))
        context = self.request.max_context or min(DEFAULT_CONTEXT, longest)

        def make(out: Path, _: Show) -> None:
            require_space(out, weight_bytes(checkpoint.folder), "the fp32 graph")
            decoder_from_checkpoint(checkpoint.folder, out, max_context=context)

        return self.steps.run("graph", [checkpoint.key, str(context)], make)

    def speeds(self, compiled: dict[str, Step]) -> dict[str, Speed]:
        def make(out: Path, show: Show) -> None:
            folders = {variant: step.folder for variant, step in compiled.items()}
            (out / SPEEDS).write_bytes(msgspec.json.encode(measure_speeds(folders, show)))

        step = self.steps.run("speed", [step.key for step in compiled.values()], make)
        return msgspec.json.decode((step.folder / SPEEDS).read_bytes(), type=dict[str, Speed])

    def parity(self, checkpoint: Step, compiled: Step) -> ParityNumbers:
        def make(out: Path, show: Show) -> None:
            write_json(out / PARITY, measure(checkpoint.folder, compiled.folder, show))

        step = self.steps.run("parity", [compiled.key], make)
        return msgspec.json.decode((step.folder / PARITY).read_bytes(), type=ParityNumbers)

    def golden(self, checkpoint: Step, passed: _Passed) -> Golden:
        def make(out: Path, _: Show) -> None:
            write_json(out / GOLDEN, make_golden(checkpoint.folder, passed.compiled.folder, passed.variant))

        step = self.steps.run("golden", [passed.compiled.key], make)
        return msgspec.json.decode((step.folder / GOLDEN).read_bytes(), type=Golden)

    def write(self, checkpoint: Step, passed: _Passed, golden: Golden) -> Manifest:
        compiled = passed.compiled
        parts = Parts(
            name=self.target.name,
            checkpoint=checkpoint.folder,
            graph=compiled.folder,
            decoder=read_decoder(compiled.folder),
            golden=golden,
            parity=passed.parity,
            source=self.fetched.source,
            variant=passed.variant,
            variant_reason=passed.reason,
            slots=self.request.slots,
            inputs=self.inputs,
        )
        require_space(self.target.parent, size_of(compiled.folder), f"the bundle {self.target.name}")
        with task("write", unit="B") as show, publishing(self.target) as folder:
            return write_bundle(parts, folder, show)


def _check_store(target: Path) -> None:
    """Before hours of work: can a bundle be written there at all?"""
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
