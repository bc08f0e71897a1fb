"""A PostgreSQL of one's own, in a temporary folder: Debian's, fetched and unpacked if it is not installed."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
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
        self._programs = _programs(self._folder)
        libraries = ":".join(map(str, self._folder.glob("usr/lib/*-gnu")))  # that came with them
        self._env = os.environ | {"LC_ALL": "C", "LD_LIBRARY_PATH": libraries}
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
        subprocess.run([self._programs / "createdb", *where, name], check=True, env=self._env)
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
        self._log = threading.Thread(target=self._server.stderr.read)  # lest it waits for a reader
        self._log.start()

    def _stop(self) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait()
        self._log.join()
        assert self._server.stderr is not None
        self._server.stderr.close()

    def _run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        path = self._programs / command[0]
        return subprocess.run(
            [path, *command[1:]], env=self._env, cwd=self._folder, **_as_nobody(), **options
        )

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._programs / command[0], *command[1:]],
            cwd=self._folder,
            env=self._env,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(orphans.end_with_parent, signal.SIGQUIT, os.getpid()),
            **_as_nobody(),
        )


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path) -> Path:
    """Where PostgreSQL's programs are: installed, or else unpacked into a folder that its user may read."""
    pattern = "usr/lib/postgresql/*/bin"
    if not (found := list(Path("/").glob(pattern))):
        for package in _packages():
            subprocess.run(["dpkg", "-x", package, folder], check=True)
        found = list(folder.glob(pattern))
    return found[-1]


def _packages() -> list[Path]:
    """Debian's, fetched but not installed: no service is started, no user made. Skips without apt."""
    folder = DATA / "postgresql"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix=".", dir=_made(DATA)) as scratch:
            try:
                _fetch(Path(scratch))
            except (OSError, subprocess.CalledProcessError, IndexError) as error:
                pytest.skip(f"PostgreSQL is not installed, and apt cannot fetch it: {error}")
            shutil.copytree(scratch, folder)
    return list(folder.glob("*.deb"))


def _fetch(folder: Path) -> None:
    command = ["apt-cache", "depends", "--important", "postgresql"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    server = told.partition("Depends: postgresql-")[2].split()[0]
    wanted = [f"postgresql-{server}", f"postgresql-client-{server}", "libpq5"]
    subprocess.run(["apt-get", "download", *wanted], cwd=folder, check=True, capture_output=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
