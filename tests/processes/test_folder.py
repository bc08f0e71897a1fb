"""The run folder: private, found in the right place, and cleaned of dead servers'."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from basert.errors import ConfigError
from basert.supervisor.folder import RunFolder


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (folder.path / "control.sock").touch()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_servers_folder_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    dead, living = RunFolder(tmp_path), RunFolder(tmp_path)
    os.close(dead._lock)  # as the kernel does when a server is killed
    stranger = tmp_path / "basert-of-something-else"
    stranger.mkdir()
    new = RunFolder(tmp_path)
    assert set(tmp_path.iterdir()) == {living.path, stranger, new.path}
    living.remove()
    new.remove()


def test_where_it_goes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for environ, base in (
        ({"RUNTIME_DIRECTORY": f"{first}:{second}", "XDG_RUNTIME_DIR": str(second)}, first),
        ({"XDG_RUNTIME_DIR": str(second)}, second),
    ):
        folder = RunFolder.below(None, environ)
        assert folder.path.parent == base
        folder.remove()
    folder = RunFolder.below(tmp_path / "own", {"RUNTIME_DIRECTORY": str(first)})
    assert folder.path.parent == tmp_path / "own"
    folder.remove()


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long a path for a socket; name a shorter --run-dir"):
        RunFolder(tmp_path / ("x" * 100))
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match=r"No run folder can be made in .*/f/b \(Not a directory\)"):
        RunFolder(tmp_path / "f" / "b")
