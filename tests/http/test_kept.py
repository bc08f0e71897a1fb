"""What is kept for a while: by whom it is found, and when it goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from basert.resources.kept import Kept, new_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


async def test_another_worker_finds_it_and_another_owner_does_not(folder: Path) -> None:
    name = new_name("resp")
    assert Kept(folder, 60, 1 << 20).put(name, "me", b"a\nb")
    other = Kept(folder, 60, 1 << 20)
    assert other.get(name, "me") == b"a\nb"
    assert other.get(name, "you") is None
    assert not other.remove(name, "you")
    assert other.remove(name, "me")
    assert not other.remove(name, "me")


async def test_only_its_user_can_read_it(folder: Path) -> None:
    name = new_name("resp")
    Kept(folder, 60, 1 << 20).put(name, "", b"x")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [name]


async def test_what_is_too_old_is_gone(folder: Path) -> None:
    kept, old, young = Kept(folder, 60, 1 << 20), new_name("resp"), new_name("resp")
    kept.put(old, "", b"x")
    kept.put(young, "", b"x")
    age(folder / old, 61)
    assert kept.get(old, "") is None
    assert kept.sweep()
    assert [path.name for path in folder.iterdir()] == [young]
    age(folder / young, 61)
    assert not kept.sweep()


async def test_the_oldest_make_room(folder: Path) -> None:
    kept, names = Kept(folder, 60, 1 << 20), [new_name("resp") for _ in range(5)]
    for number, name in enumerate(names):
        kept.put(name, "", bytes(300_000))
        age(folder / name, 30 - number)
    kept.sweep()
    assert {path.name for path in folder.iterdir()} == set(names[2:])
    assert not kept.put(new_name("resp"), "", bytes(2 << 20))


@pytest.mark.parametrize(
    "name", ["../secret", "secret", "resp_", "resp_" + "A" * 48, "resp_" + "a" * 48 + "\n"]
)
async def test_names_of_others_are_no_paths(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder.parent / "secret").write_bytes(b"\nx")
    (folder / "secret").write_bytes(b"\nx")
    assert Kept(folder, 60, 1 << 20).get(name, "") is None
    assert not Kept(folder, 60, 1 << 20).remove(name, "")


async def test_a_disk_that_cannot_be_written_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert not Kept(tmp_path / "file", 60, 1 << 20).put(new_name("resp"), "", b"x")
    assert "not kept" in caplog.text


async def test_without_a_folder_or_time_nothing_is_kept(folder: Path) -> None:
    for kept in (Kept(None, 60, 1 << 20), Kept(folder, 0, 1 << 20)):
        assert not kept.is_open
        assert not kept.put(new_name("resp"), "", b"x")
        assert kept.get(new_name("resp"), "") is None
