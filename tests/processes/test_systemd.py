"""A real notification socket, real socket activation, and units that systemd's own tools accept."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from basert.supervisor.notify import Notifier
from tests.serving import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
MOST_EXPOSURE = 1.5  # of 10, as `systemd-analyze security` scores

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
needs_activate = pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd")


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.settimeout(60)
        yield sock


def _until(notifications: socket.socket, word: str) -> list[str]:
    """What has come, up to the message that begins with `word`."""
    messages = [notifications.recv(4096).decode()]
    while not messages[-1].startswith(word):
        messages.append(notifications.recv(4096).decode())
    return messages


def test_a_servers_life_as_systemd_sees_it(bundle: Path, run_dir: Path, notifications: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": notifications.getsockname(), "WATCHDOG_USEC": "200000"}
    server = Server([bundle], ["--run-dir", str(run_dir)], env=env)
    try:
        *before, ready = _until(notifications, "READY=1")
        assert "STATUS=tiny loading 0%" in before
        assert "WATCHDOG=1" in before
        assert ready == "READY=1\nSTATUS=tiny ready"
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        os.kill(server.pid, signal.SIGHUP)
        reloading = _until(notifications, "RELOADING=1")[-1]
        assert 0 < int(reloading.partition("MONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
        _until(notifications, "READY=1")
        _until(notifications, "WATCHDOG=1")
    finally:
        assert server.stop() == 0
    assert "STATUS=Finishing open requests" in _until(notifications, "STOPPING=1")[-1]


def test_abstract_notification_sockets() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0basert-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@basert-test-{os.getpid()}"}).status("well")
        assert sock.recv(100) == b"STATUS=well"


def test_a_deaf_or_absent_systemd_is_no_trouble(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("well")
    Notifier({}).ready("well")


@needs_activate
def test_socket_activation(bundle: Path, run_dir: Path) -> None:
    """systemd holds the port; the first connection starts the server and is answered by it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-E", "PYTHONPATH"),
        *(sys.executable, "-m", "basert", "serve", str(bundle), "--run-dir", str(run_dir), "--threads", "1"),
        *("--host", "192.0.2.1"),  # nobody's: the socket that was passed counts
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert f"Listening on 127.0.0.1:{port}" in output.readline()
        assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=60).status_code == 200
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree that the installer has worked on, with a command that exists."""
    command = [str(DEPLOY / "install.sh"), "install", "--root", str(tmp_path), "--basert", sys.executable]
    subprocess.run(command, check=True)
    return tmp_path


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_install_and_uninstall(root: Path) -> None:
    units = {"etc/systemd/system/basert.service", "etc/systemd/system/basert.socket"}
    config = "etc/basert/basert.toml"
    others = {"usr/lib/sysusers.d/basert.conf", "usr/local/share/doc/basert/serving.md"}
    assert _files(root) == units | others | {config}
    assert f"ExecStart={sys.executable} serve" in (root / "etc/systemd/system/basert.service").read_text()
    (root / config).write_text("model = ['mine']")
    install = [str(DEPLOY / "install.sh"), "install", "--root", str(root), "--basert", "/bin/true"]
    subprocess.run(install, check=True)
    assert (root / config).read_text() == "model = ['mine']"
    subprocess.run([str(DEPLOY / "install.sh"), "uninstall", "--root", str(root)], check=True)
    assert _files(root) == {config}


def test_the_services_user_can_read_what_a_strict_root_installs(tmp_path: Path) -> None:
    install = [str(DEPLOY / "install.sh"), "install", "--root", str(tmp_path), "--basert", "/bin/true"]
    subprocess.run(install, check=True, umask=0o077)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_no_environment_is_made_where_it_would_not_run(tmp_path: Path) -> None:
    install = [str(DEPLOY / "install.sh"), "install", "--root", str(tmp_path)]
    refused = subprocess.run(install, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "--root needs --basert" in refused.stderr
    assert _files(tmp_path) == set()


def test_the_shipped_configuration_is_valid() -> None:
    from basert import config

    loaded = config.load({}, {}, DEPLOY / "basert.toml").config
    assert loaded.model == ("smollm2",)


@needs_analyze
def test_systemd_accepts_the_units(root: Path) -> None:
    units = [str(path) for path in sorted((root / "etc/systemd/system").iterdir())]
    result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@needs_analyze
def test_the_service_is_hardened(root: Path) -> None:
    unit = str(root / "etc/systemd/system/basert.service")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", unit]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    score = re.search(r"Overall exposure level .*: ([\d.]+)", result.stdout)
    assert score is not None
    assert float(score[1]) <= MOST_EXPOSURE


def test_the_stop_timeout_fits_the_drain() -> None:
    from basert.config import ServeConfig
    from basert.supervisor.run import LATE_SECONDS, STOP_SECONDS

    unit = (DEPLOY / "basert.service").read_text()
    stop = int(unit.partition("TimeoutStopSec=")[2].split()[0])
    assert stop >= ServeConfig().drain_timeout + LATE_SECONDS + STOP_SECONDS
