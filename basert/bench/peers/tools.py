"""How a peer's room is filled: virtual environments, packages, builds. Output goes to a log in the room."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from basert.bench.peers.peer import PeerFailed

LOG = "install.log"
ENVIRONMENT = "venv"
CONSTRAINTS = "build-constraints.txt"


def run(room: Path, *command: str | Path) -> None:
    """Raises PeerFailed with the last line that it wrote when it fails."""
    with (room / LOG).open("a+") as log:
        log.write(f"$ {' '.join(map(str, command))}\n")
        log.flush()
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=room
            ).returncode
        except OSError as error:
            raise PeerFailed(f"{command[0]} cannot be run ({error.strerror}); install it first.") from None
    if status:
        raise PeerFailed(f"{Path(command[0]).name} ended with {status}: {_complaint(room / LOG)}")


def _complaint(log: Path) -> str:
    """The line that says most: the last one with an error in it, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines[-200:] if "error" in line.lower() and not line.startswith("$")]
    return f"{(errors or lines or ['it said nothing'])[-1][:300]} (all of it: {log})"


def python(room: Path) -> Path:
    return room / ENVIRONMENT / "bin" / "python"


def pip_install(room: Path, *packages: str, options: Sequence[str] = ()) -> None:
    """Into the room's virtual environment, which is made if need be."""
    if not python(room).exists():
        run(room, sys.executable, "-m", "venv", room / ENVIRONMENT)
    pip = (python(room), "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(room, *pip, "install", "--prefer-binary", *options, *packages)


def fetch(
    room: Path, package: str, version: str, sha256: str, *, source: bool = False, built_with: str = ""
) -> Path:
    """A package's wheel, or its source archive, fetched with pip as it is set up here, its hash checked.

    built_with: a requirement of what pip builds a source's metadata with.
    """
    wanted = (f"{package}=={version}", "--no-binary" if source else "--only-binary", package)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    (room / CONSTRAINTS).write_text(built_with)
    building = ("--build-constraint", room / CONSTRAINTS) if built_with else ()
    run(room, *pip, "download", "--no-deps", "--dest", room / "fetched", *building, *wanted)
    [archive] = (room / "fetched").glob("*.tar.gz" if source else "*.whl")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise PeerFailed(f"{archive.name} is not the file this recipe knows (its SHA-256 differs).")
    return archive


def unpack_sdist(room: Path, package: str, version: str, sha256: str) -> Path:
    """The folder of a source package, its hash checked."""
    archive = fetch(room, package, version, sha256, source=True)
    with tarfile.open(archive) as files:
        files.extractall(room / "source", filter="data")
    archive.unlink()
    [folder] = (room / "source").iterdir()
    return folder


def installed_versions(room: Path, *packages: str) -> dict[str, str]:
    """Of packages in the room's environment; those that are not there are left out. Raises PeerFailed."""
    code = (
        "import importlib.metadata as m, json, sys;"
        "there = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()};"
        "print(json.dumps({n: there[n] for n in sys.argv[1:] if n in there}))"
    )
    asked = subprocess.run([python(room), "-c", code, *packages], capture_output=True, text=True)
    if asked.returncode:
        raise PeerFailed(f"its environment {room} does not work; delete it, to have it made again.")
    found: dict[str, str] = json.loads(asked.stdout)
    return found
