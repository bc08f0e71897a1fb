"""An encoder's engine in this process, and what its testing session must answer."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from basert.messages import Cancel, Encode, Failed, Message, Stats, StatsRequest, Vectors
from engines.encoder import EncoderEngine
from engines.loading import EngineConfig, load
from engines.sessions.testing import EncoderScript, values_of
from tests.engines.process import Worker
from tests.tiny import ENCODER_GRAPH

PEER = 1
SAFE = range(10, 250)  # ids of the testing tokenizer that do no harm


def script_of(bundle: Path) -> EncoderScript:
    return msgspec.json.decode((bundle / ENCODER_GRAPH).read_bytes(), type=EncoderScript)


def input_of(seed: int, length: int) -> list[int]:
    """Token ids that no other seed has in this length."""
    return [SAFE[(seed * 7919 + i * i * (seed + 1)) % len(SAFE)] for i in range(length)]


def by_input(answers: list[Vectors], width: int) -> dict[int, NDArray[np.float32]]:
    """Every input's answer. None came twice, and `last` is said once, with the last of them."""
    found: dict[int, NDArray[np.float32]] = {}
    for answer in answers:
        rows = np.frombuffer(answer.data, "<f4").reshape(-1, width)
        assert len(rows) == len(answer.indices) > 0
        assert not found.keys() & set(answer.indices)
        found |= zip(answer.indices, rows, strict=True)
    assert [answer.last for answer in answers] == [False] * (len(answers) - 1) + [True]
    return found


class EncodingEngine:
    """Driven as engines/__main__.py does it, without sockets. Collects what is published."""

    def __init__(self, bundle: Path, **config: Any) -> None:
        self.replies: defaultdict[tuple[int, int], list[Message]] = defaultdict(list)
        self.frames: list[tuple[int, list[Message]]] = []
        self._woken = threading.Event()
        engine, self.info = load(
            EngineConfig(bundle, **config), self._publish, lambda stage, fraction: None, self._woken.set
        )
        assert isinstance(engine, EncoderEngine)
        self.engine = engine
        self.script = script_of(bundle)
        self._next = 0

    def __enter__(self) -> EncodingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def ask(self, inputs: list[list[int]], *, peer: int = PEER, **more: Any) -> int:
        self._next += 1
        self.engine.receive(peer, Encode(self._next, inputs, **more))
        return self._next

    def cancel(self, number: int, peer: int = PEER) -> None:
        self.engine.receive(peer, Cancel(number))

    def turn(self) -> None:
        """Wait as long as the engine would, then step."""
        self._woken.wait(self.engine.patience)
        self._woken.clear()
        self.engine.step()

    def finish(self) -> None:
        self.engine.step()
        while self.engine.busy:
            self.turn()

    def answers(self, number: int, peer: int = PEER) -> dict[int, NDArray[np.float32]]:
        vectors = [reply for reply in self.replies[peer, number] if isinstance(reply, Vectors)]
        assert len(vectors) == len(self.replies[peer, number])
        return by_input(vectors, self.script.width)

    def check(self, number: int, inputs: list[list[int]], peer: int = PEER, types: Any = None) -> None:
        """Each input has its own answer."""
        found = self.answers(number, peer)
        assert found.keys() == set(range(len(inputs)))
        for index, ids in enumerate(inputs):
            expected = values_of(self.script, ids, types[index] if types else None)
            assert np.array_equal(found[index], expected)

    def failure(self, number: int, peer: int = PEER) -> Failed:
        reply = self.replies[peer, number][-1]
        assert isinstance(reply, Failed)
        return reply

    def stats(self) -> Stats:
        self.engine.receive(PEER, StatsRequest(0))
        reply = self.replies[PEER, 0].pop()
        assert isinstance(reply, Stats)
        return reply

    def _publish(self, peer: int, messages: list[Message]) -> None:
        self.frames.append((peer, messages))
        for message in messages:
            self.replies[peer, message.id].append(message)  # type: ignore[attr-defined]


async def until_answered(worker: Worker, number: int) -> tuple[list[Vectors], str]:
    """The answers to an Encode that come from now on, and "" or the failure's code ("lost": hung up)."""
    answers: list[Vectors] = []
    while message := await worker.next():
        if isinstance(message, Failed) and message.id == number:
            return answers, message.code
        if isinstance(message, Vectors) and message.id == number:
            answers.append(message)
            if message.last:
                return answers, ""
    return answers, "lost"


async def encode(worker: Worker, number: int, inputs: list[list[int]]) -> tuple[list[Vectors], str]:
    worker.connection.send(Encode(number, inputs))
    return await until_answered(worker, number)
