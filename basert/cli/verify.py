"""`basert verify`: every file's hash, then the golden outputs, by starting the bundle's engine once."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from pathlib import Path

import click

from basert import progress, store, transport
from basert.adapter import ADAPTER, read_adapter
from basert.cli.completion import bundle_names
from basert.errors import BundleError
from basert.manifest import MANIFEST, File, read_manifest
from basert.messages import EngineReport

Report = asyncio.Future[EngineReport]


@click.command("verify")
@click.argument("bundle", shell_complete=bundle_names)
def command(bundle: str) -> None:
    """Check that a BUNDLE is as it was exported: the hash of every file, and the answers of its engine.

    Of an adapter, the hash of its file."""
    if store.is_adapter_name(bundle):
        _verify_adapter(store.find_adapter(bundle))
        return
    path = store.find(bundle)
    manifest = read_manifest(path)
    _check_files(path, manifest.files, MANIFEST)
    with progress.task("goldens"):
        provider = asyncio.run(_load(path))
    files = f"{len(manifest.files)} files"
    click.echo(f"{manifest.name} is as it was exported: {files}, golden outputs on {provider}")


def _verify_adapter(path: Path) -> None:
    adapter = read_adapter(path)
    _check_files(path, adapter.files, ADAPTER)
    click.echo(f"{adapter.name} is as it was exported for {adapter.base}: {len(adapter.files)} file")


def _check_files(bundle: Path, files: list[File], index: str) -> None:
    """index: the file that lists the others."""
    total, done = sum(file.bytes for file in files), 0
    with progress.task("files", unit="B") as show:
        for file in files:
            _check_file(bundle / file.path, file)
            done += file.bytes
            show(done, total)
    known = {index, *(file.path for file in files)}
    extra = sorted(_names(bundle) - known)
    if extra:
        raise BundleError(f"{bundle / extra[0]} is not part of the bundle; remove it.")


def _check_file(path: Path, expected: File) -> None:
    mend = "export the model again"
    if not path.is_file():
        raise BundleError(f"{path} is missing; {mend}.")
    if path.stat().st_size != expected.bytes:
        raise BundleError(f"{path} has {path.stat().st_size:,} bytes and had {expected.bytes:,}; {mend}.")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected.sha256:
            raise BundleError(f"{path} was altered (its SHA-256 differs); {mend}.")


def _names(bundle: Path) -> set[str]:
    return {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}


async def _load(bundle: Path) -> str:
    """Let an engine load the bundle, which checks its goldens, then end it. Returns what ran it."""
    report: Report = asyncio.get_running_loop().create_future()

    async def listen(engine: transport.Connection) -> None:
        while messages := await engine.receive():
            for message in messages:
                if isinstance(message, EngineReport) and message.stage in ("ready", "failed"):
                    report.set_result(message)

    with tempfile.TemporaryDirectory(prefix="basert-") as folder:
        control = Path(folder, "control")
        async with await transport.serve(control, listen):
            log = await _run_engine(bundle, Path(folder, "engine"), control, report)
    if not report.done():
        raise BundleError(f"the engine of {bundle} ended before it was loaded: {log}")
    outcome = report.result()
    if outcome.info is None:
        raise BundleError(outcome.reason)
    return outcome.info.provider


async def _run_engine(bundle: Path, requests: Path, control: Path, report: Report) -> str:
    """One engine process until it has reported, or ended by itself. Returns the last line it logged."""
    flags = ["--bundle", str(bundle), "--socket", str(requests), "--control", str(control), "--slots", "1"]
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engines", *flags, stderr=asyncio.subprocess.PIPE
    )
    output = asyncio.ensure_future(engine.communicate())
    await asyncio.wait((report, output), return_when=asyncio.FIRST_COMPLETED)
    if engine.returncode is None:
        engine.terminate()
    _, log = await output
    return (log.decode().strip().splitlines() or ["it said nothing"])[-1]
