"""A PostgreSQL of one's own, in a temporary folder: Debian's, fetched and unpacked if it is not installed."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

from basert import orphans
from tests.packages import DATA

PORT = 5432  # of the socket; nothing listens on the network
READY = "database system is ready to accept connections"


class Postgres:
    """`with Postgres() as server:` runs until the block ends, or this process does."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self._folder / "data"
        self._programs = programs()
        self._number = 0

    def __enter__(self) -> Self:
        if os.geteuid() == 0:  # as whom it refuses to run
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        initdb = [
            "initdb",
            "--username=basert",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
        ]
        done = self._run([*initdb, str(self._data)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        shutil.rmtree(self._folder)

    def database(self) -> str:
        """The URL of a new one."""
        self._number += 1
        name = f"test{self._number}"
        where = ["--host", str(self._folder), "--port", str(PORT), "--username", "basert"]
        subprocess.run([self._programs / "createdb", *where, name], check=True, env=_environment())
        return f"postgresql+psycopg://basert@/{name}?host={self._folder}&port={PORT}"

    def restart(self) -> None:
        """As after a crash: every connection breaks."""
        self._stop()
        self._start()

    def _start(self) -> None:
        settings = [
            "listen_addresses=",
            f"unix_socket_directories={self._folder}",
            f"port={PORT}",
            "fsync=off",
        ]
        command = ["postgres", "-D", str(self._data), *(word for one in settings for word in ("-c", one))]
        self._server = self._popen(command)
        assert self._server.stderr is not None
        while READY not in (line := self._server.stderr.readline()):
            assert line, "PostgreSQL did not start"

    def _stop(self) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.communicate()

    def _run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        path = self._programs / command[0]
        return subprocess.run([path, *command[1:]], **_as_nobody(), cwd=self._folder, **options)

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._programs / command[0], *command[1:]],
            cwd=self._folder,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(orphans.end_with_parent, signal.SIGQUIT, os.getpid()),
            **_as_nobody(),
        )


def _as_nobody() -> dict[str, Any]:
    who = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    return {"env": _environment()} | (who if os.geteuid() == 0 else {})


def _environment() -> dict[str, str]:
    """Where the libraries are that came with fetched programs."""
    return os.environ | {
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": ":".join(map(str, DATA.glob("postgresql/usr/lib/*-gnu"))),
    }


def programs() -> Path:
    """The folder of PostgreSQL's programs. Skips the test if there are none and they cannot be fetched."""
    pattern = "usr/lib/postgresql/*/bin"
    if not (found := [*Path("/").glob(pattern), *(DATA / "postgresql").glob(pattern)]):
        _fetch(DATA / "postgresql")
        found = list((DATA / "postgresql").glob(pattern))
    return found[-1]


def _fetch(folder: Path) -> None:
    """Debian's packages, unpacked but not installed: no service is started, no user made."""
    try:
        described = subprocess.run(
            ["apt-cache", "depends", "--important", "postgresql"], capture_output=True, text=True, check=True
        )
        server = described.stdout.partition("Depends: postgresql-")[2].split()[0]
        with tempfile.TemporaryDirectory() as scratch:
            wanted = [f"postgresql-{server}", f"postgresql-client-{server}", "libpq5"]
            subprocess.run(["apt-get", "download", *wanted], cwd=scratch, check=True, capture_output=True)
            for package in Path(scratch).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        pytest.skip(f"PostgreSQL is not installed, and apt cannot fetch it: {error}")
