"""Peers are installed once; what did not get ready is made again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from basert.bench.peers import cache, tools
from basert.bench.peers.peer import Model, PeerFailed
from tests.bench.conftest import Broken


class Counted(Broken):
    name = "counted"
    fails = False

    def __init__(self) -> None:
        self.installed = self.converted = 0

    def install(self, room: Path) -> None:
        assert [*room.iterdir()] == []
        self.installed += 1
        (room / "half").touch()
        if self.fails:
            tools.run(room, sys.executable, "-c", "print('error: no compiler'); print('bye'); exit(3)")

    def convert(self, room: Path, model: Model, into: Path) -> None:
        assert (room / "half").exists()
        assert [*into.iterdir()] == []
        self.converted += 1


def test_installed_once_and_again_with_another_recipe(tmp_path: Path, model: Model) -> None:
    peer = Counted()
    for _ in range(2):
        room, made = cache.install(peer, tmp_path)
        cache.convert(peer, room, model)
    assert (peer.installed, peer.converted) == (1, 1)
    assert made.seconds >= 0
    peer.recipe = "2"  # type: ignore[misc]
    cache.install(peer, tmp_path)
    assert peer.installed == 2


def test_what_failed_says_why_and_is_tried_again(tmp_path: Path) -> None:
    peer = Counted()
    peer.fails = True
    for attempt in (1, 2):
        with pytest.raises(
            PeerFailed, match=r"ended with 3: error: no compiler \(all of it: .*install\.log\)"
        ):
            cache.install(peer, tmp_path)
        assert peer.installed == attempt
    peer.fails = False
    cache.install(peer, tmp_path)
    assert peer.installed == 3


def test_a_missing_program_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="no-such-program cannot be run"):
        tools.run(tmp_path, "no-such-program")
