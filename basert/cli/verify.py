"""`basert verify`: the signature, if a key is named for it, every file's hash, then the golden outputs, by
starting the bundle's engine once."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from basert import progress, signing, store, transport
from basert.adapter import ADAPTER, is_adapter, read_adapter
from basert.cli.completion import bundle_names
from basert.errors import BundleError
from basert.manifest import COMPILED, MANIFEST, SIGNATURE, File, read_manifest
from basert.messages import EngineReport

Report = asyncio.Future[EngineReport]


@click.command("verify")
@click.argument("bundle", shell_complete=bundle_names)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check the bundle's signature with this public key first.",
)
def command(bundle: str, key: Path | None) -> None:
    """Check that a BUNDLE is as it was exported: the hash of every file, and the answers of its engine.

    Of an adapter, the hash of its file. With --key, that it is as it was signed, before anything is read.
    """
    path = store.find_adapter(bundle) if store.is_adapter_name(bundle) else store.find(bundle)
    if key is not None:
        with progress.task("signature"):
            signing.verify(path, key, "--key")
    count = check_files(path)
    if is_adapter(path):
        adapter = read_adapter(path)
        told = f"{adapter.name} is as it was exported for {adapter.base}: {count} file"
        click.echo(f"{told}{_signed(path, key)}")
        return
    with progress.task("goldens"):
        provider = asyncio.run(_load(path, () if key is None else signing.engine_flags(path)))
    files = f"{count} files, golden outputs on {provider}{_signed(path, key)}"
    click.echo(f"{read_manifest(path).name} is as it was exported: {files}")


def _signed(bundle: Path, key: Path | None) -> str:
    if key is not None:
        return f", signed with the other half of {key}"
    return "; its signature was not checked (--key)" if (bundle / SIGNATURE).exists() else ""


def check_files(bundle: Path) -> int:
    """How many a bundle or an adapter lists. Raises BundleError for one that is missing, altered, or not part
    of it."""
    index = ADAPTER if is_adapter(bundle) else MANIFEST
    files = read_adapter(bundle).files if is_adapter(bundle) else read_manifest(bundle).files
    total, done = sum(file.bytes for file in files), 0
    with progress.task("files", unit="B") as show:
        for file in files:
            _check_file(bundle / file.path, file)
            done += file.bytes
            show(done, total)
    known = {index, SIGNATURE, *(file.path for file in files)}
    extra = sorted(_names(bundle) - known)
    if extra:
        raise BundleError(f"{bundle / extra[0]} is not part of the bundle; remove it.")
    return len(files)


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
    """All files but what was compiled here."""
    names = (path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    return {str(name) for name in names if name.parts[0] != COMPILED}


async def _load(bundle: Path, more: Sequence[str]) -> str:
    """Let an engine load the bundle, which checks its goldens, then end it. Returns what ran it.

    more: flags for the engine.
    """
    report: Report = asyncio.get_running_loop().create_future()

    async def listen(engine: transport.Connection) -> None:
        while messages := await engine.receive():
            for message in messages:
                if isinstance(message, EngineReport) and message.stage in ("ready", "failed"):
                    report.set_result(message)

    with tempfile.TemporaryDirectory(prefix="basert-") as folder:
        control = Path(folder, "control")
        async with await transport.serve(control, listen):
            log = await _run_engine(bundle, Path(folder, "engine"), control, report, more)
    if not report.done():
        raise BundleError(f"the engine of {bundle} ended before it was loaded: {log}")
    outcome = report.result()
    if outcome.info is None:
        raise BundleError(outcome.reason)
    return outcome.info.provider


async def _run_engine(
    bundle: Path, requests: Path, control: Path, report: Report, more: Sequence[str]
) -> str:
    """One engine process until it has reported, or ended by itself. Returns the last line it logged."""
    flags = ["--bundle", str(bundle), "--socket", str(requests), "--control", str(control), "--slots", "1"]
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engines", *flags, *more, stderr=asyncio.subprocess.PIPE
    )
    output = asyncio.ensure_future(engine.communicate())
    await asyncio.wait((report, output), return_when=asyncio.FIRST_COMPLETED)
    if engine.returncode is None:
        engine.terminate()
    _, log = await output
    return (log.decode().strip().splitlines() or ["it said nothing"])[-1]
