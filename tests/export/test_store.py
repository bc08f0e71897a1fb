"""The store: where bundles are, by which names they are found, who holds one."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from basert import store
from basert.errors import BundleError, ConfigError
from tests.tiny import write_testing_bundle


@pytest.fixture
def root(home: Path) -> Path:
    """The store with bundles `first` and `second`, and things that are none."""
    folder = home / "store"
    for name in ("second", "first", ".first.new"):
        write_testing_bundle(folder, name=name)
    (folder / "empty").mkdir()
    return folder


def test_whole_bundles_only(root: Path) -> None:
    assert store.bundles() == [root / "first", root / "second"]


def test_no_store_is_an_empty_store(home: Path) -> None:
    assert store.bundles() == []


def test_root_without_basert_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASERT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    assert store.store_root() == home / "data" / "basert" / "models"


def test_find_by_name_and_by_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.find("first") == root / "first"
    assert store.find(str(root / "second")) == root / "second"
    monkeypatch.chdir(root / "second")
    assert store.find(".") == root / "second"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fist", "did you mean first?"),
        ("other", "it has first, second"),
        ("../first/graphs", "is no bundle"),
    ],
)
def test_what_is_not_there(root: Path, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "second")
    with pytest.raises(BundleError) as caught:
        store.find(name)
    assert sentence in caught.value.message


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_unsafe_names(home: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a bundle"):
        store.bundle_path(name)


def _hold(
    bundle: Path, held: multiprocessing.synchronize.Event, let_go: multiprocessing.synchronize.Event
) -> None:
    with store.hold(bundle):
        held.set()
        let_go.wait()


def test_in_use_while_a_process_holds_it(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(root / "first", held, let_go))
    process.start()
    assert held.wait(60)
    assert store.in_use(root / "first")
    assert not store.in_use(root / "second")
    process.kill()
    process.join()
    assert not store.in_use(root / "first")
