"""What the checkpoint itself makes of the texts, in float32: kept between runs beside the peers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from basert.bench.peers import cache as kept
from basert.bench.peers.encoders import SentenceTransformers
from basert.bench.peers.peer import Model
from basert.bench.sentences import Sentences


def vectors(model: Model, sentences: Sentences, cache: Path) -> bytes:
    """float32 [texts, width], by Sentence Transformers in its own environment. Raises PeerFailed."""
    peer = SentenceTransformers()
    room, _ = kept.install(peer, cache)
    folder = room.parent / "references" / model.digest

    def make() -> None:
        (folder / "texts.json").write_bytes(msgspec.json.encode(sentences.texts))
        peer.write(room, model, folder / "texts.json", folder / "vectors.f32")

    kept.keep(folder, f"{peer.recipe} {sentences.digest}", "computing vectors to compare with", make)
    return (folder / "vectors.f32").read_bytes()
