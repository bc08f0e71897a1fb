"""Peers kept between runs: .cache/peers/<peer>/, made anew only when its recipe has changed.

<peer>/room/               what `install` made
<peer>/models/<digest>/    what `convert` made of one model
Each has a stamp that is written last: a folder with a stamp of the present recipe is whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from basert import progress
from basert.bench.peers.peer import Model, Peer
from basert.manifest import write_json

STAMP = "made.json"
ROOM = "room"


class Made(msgspec.Struct, frozen=True):
    recipe: str
    seconds: float  # that making it took


def install(peer: Peer, cache: Path) -> tuple[Path, Made]:
    """The peer's room, and when it was made. Raises PeerFailed."""
    room = cache.absolute() / (peer.home or peer.name) / ROOM
    if type(peer).install is Peer.install:
        return room, Made(peer.recipe, 0)
    return room, keep(room, peer.recipe, f"installing {peer.name}", lambda: peer.install(room))


def convert(peer: Peer, room: Path, model: Model) -> Path:
    """What the peer serves of `model`. Raises PeerFailed."""
    into = room.parent / "models" / model.digest
    keep(
        into, peer.recipe, f"converting {model.name} for {peer.name}", lambda: peer.convert(room, model, into)
    )
    return into


def keep(folder: Path, recipe: str, label: str, make: Callable[[], None]) -> Made:
    """Fill the folder, unless it is whole. One without a stamp did not get ready: its log stays until now."""
    stamp = folder / STAMP
    if stamp.is_file():
        made = msgspec.json.decode(stamp.read_bytes(), type=Made)
        if made.recipe == recipe:
            return made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    with progress.task(label):
        make()
    made = Made(recipe, round(time.monotonic() - started, 1))
    write_json(stamp, made)
    return made
