"""What a runtime compiled is found again by the same facts only, and whole or not at all."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
import pytest

from basert.manifest import read_manifest
from engines import compiled
from engines.compiled import Compiled
from tests.tiny import write_testing_encoder

FACTS = {"kind": "plan", "runtime": "1.0"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_testing_encoder(tmp_path)


@pytest.fixture
def shelf(bundle: Path) -> Compiled:
    manifest = read_manifest(bundle)
    return Compiled(bundle, manifest, manifest.graphs[0])


def put(shelf: Compiled, **facts: str) -> None:
    with shelf.adding(**facts) as folder:
        assert folder is not None
        (folder / "plan").write_bytes(b"abc")


def names(bundle: Path) -> set[str]:
    return {path.name for path in (bundle / compiled.FOLDER).iterdir()} - {".lock"}


def test_it_is_found_by_the_facts_it_was_made_under(shelf: Compiled) -> None:
    assert shelf.find(**FACTS) is None
    put(shelf, **FACTS)
    found = shelf.find(**FACTS)
    assert found is not None
    assert (found / "plan").read_bytes() == b"abc"
    assert shelf.find(**FACTS | {"runtime": "1.1"}) is None


def test_what_it_replaces_goes_and_the_rest_stays(shelf: Compiled, bundle: Path) -> None:
    put(shelf, kind="choice", runtime="1.0")
    put(shelf, **FACTS)
    put(shelf, **FACTS | {"runtime": "1.1"})
    assert len(names(bundle)) == 2
    assert shelf.find(**FACTS) is None
    assert shelf.find(kind="choice", runtime="1.0")


@pytest.mark.parametrize("fact", ["graph", "host", "runtime"])
def test_another_graph_or_host_finds_nothing(
    shelf: Compiled, bundle: Path, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    put(shelf, **FACTS)
    manifest = read_manifest(bundle)
    if fact == "graph":
        files = [msgspec.structs.replace(file, sha256="0" * 64) for file in manifest.files]
        manifest = msgspec.structs.replace(manifest, files=files)
    elif fact == "host":
        monkeypatch.setattr(compiled, "CPUINFO", bundle / "none")
    else:
        monkeypatch.setattr(compiled, "_runtime", lambda: "onnxruntime 0")
    assert Compiled(bundle, manifest, manifest.graphs[0]).find(**FACTS) is None


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "facts"])
def test_what_is_damaged_is_not_there(shelf: Compiled, damage: str) -> None:
    put(shelf, **FACTS)
    found = shelf.find(**FACTS)
    assert found is not None
    match damage:
        case "cut":
            (found / "plan").write_bytes(b"a")
        case "gone":
            (found / "plan").unlink()
        case "more":
            (found / "other").touch()
        case "facts":
            (found / compiled.FACTS).write_bytes(b"{")
    assert shelf.find(**FACTS) is None
    put(shelf, **FACTS)
    assert shelf.find(**FACTS)


def test_a_build_that_fails_leaves_what_was_there(shelf: Compiled, bundle: Path) -> None:
    put(shelf, **FACTS)
    with pytest.raises(RuntimeError), shelf.adding(**FACTS):
        raise RuntimeError
    assert shelf.find(**FACTS)
    assert len(names(bundle)) == 1


def test_what_a_killed_build_left_is_cleared(shelf: Compiled, bundle: Path) -> None:
    (bundle / compiled.FOLDER / ".new").mkdir(parents=True)
    (bundle / compiled.FOLDER / ".new" / "plan").touch()
    put(shelf, **FACTS)
    assert shelf.find(**FACTS)


def test_while_another_process_adds_nothing_is_kept(shelf: Compiled, bundle: Path) -> None:
    (bundle / compiled.FOLDER).mkdir()
    with (bundle / compiled.FOLDER / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with shelf.adding(**FACTS) as folder:
            assert folder is None
    assert not names(bundle)


def test_a_bundle_that_cannot_be_written_is_no_trouble(shelf: Compiled, bundle: Path) -> None:
    (bundle / compiled.FOLDER).touch()  # in the folder's place
    with shelf.adding(**FACTS) as folder:
        assert folder is None
    assert shelf.find(**FACTS) is None
