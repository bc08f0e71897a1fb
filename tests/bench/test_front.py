"""The OpenAI front of libraries that have none, before an engine that counts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from basert.bench.load import Outcome, Workload, run
from basert.bench.peers.fronts.server import Engine, Front, Request, let_leave
from basert.bench.prompts import Prompts
from basert.client import Client
from basert.server_process import ServerProcess, free_port
from tests.tiny import tiny_tokenizer

ROOT = Path(__file__).parents[2]


class Counting(Engine):
    """Answers 40, 41, … one by one, each when the last one has left; notes who is cancelled."""

    def __init__(self, cancelled: Path) -> None:
        self._cancelled = cancelled
        self._over: set[int] = set()

    def submit(self, request: Request) -> None:
        self._next(request, 0)

    def _next(self, request: Request, count: int) -> None:
        if request.id in self._over:
            return
        last = count + 1 == request.max_tokens
        request.push([40 + count % 50], last)
        if not last:
            request.loop.call_later(0.002, self._next, request, count + 1)

    def cancel(self, request: Request) -> None:
        self._over.add(request.id)
        with self._cancelled.open("a") as file:
            file.write(f"{len(request.prompt)} ")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[ServerProcess]:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.test_front", str(tmp_path), str(port)]
    with ServerProcess(command, port=port, env={"PYTHONPATH": str(ROOT)}, ready_path="/v1/models") as server:
        yield server


async def test_every_token_leaves_as_it_comes(front: ServerProcess, tmp_path: Path) -> None:
    async with Client(front.url) as client:
        assert [card.id for card in await client.models()] == ["counting"]
        workload = Workload(client, "counting", Prompts([[50, 51, 52]]))
        outcomes = [Outcome(0.0) for _ in range(4)]
        bodies = workload.bodies(4, 9, 20)
        await asyncio.gather(*(run(client, *pair) for pair in zip(bodies, outcomes, strict=True)))
    for outcome in outcomes:
        assert outcome.error is None
        assert (outcome.tokens, outcome.prompt_tokens, len(outcome.arrivals)) == (20, 9, 20)


async def test_who_leaves_is_cancelled(front: ServerProcess, tmp_path: Path) -> None:
    async with Client(front.url) as client:
        workload = Workload(client, "counting", Prompts([[50, 51, 52]]))
        [body] = workload.bodies(1, 7, 1_000_000)
        async for chunk in client.stream("/v1/completions", body):
            assert chunk.text
            break
        while not (tmp_path / "cancelled").exists():
            await asyncio.sleep(0.01)
    assert (tmp_path / "cancelled").read_text() == "7 "


class Written:
    """Stands in for an answer's connection, which is all that `_stream` asks of it."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


async def test_an_engine_that_waits_sees_its_tokens_leave(tmp_path: Path) -> None:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    loop = asyncio.get_running_loop()
    requests = [Request(number, [1], 3, False, loop) for number in range(8)]
    answers = [Written() for _ in requests]
    front = Front(Counting(tmp_path / "none"), tmp_path / "tokenizer.json", "counting")
    pairs = zip(requests, answers, strict=True)
    streams = [asyncio.create_task(front._stream(*pair)) for pair in pairs]  # type: ignore[arg-type]
    seen: list[set[int]] = []

    def engine() -> None:
        for count in range(3):
            for request in requests:
                request.push([40 + count], last=count == 2)
            let_leave(loop)
            seen.append({len(answer.chunks) for answer in answers})

    await asyncio.to_thread(engine)
    await asyncio.gather(*streams)
    assert seen == [{1}, {2}, {4}]  # the last token, and the usage


def test_it_needs_nothing_of_basert_but_itself() -> None:
    code = "import sys, basert.bench.peers.fronts.server; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert {name for name in done if name.startswith("basert")} <= {
        "basert",
        "basert.bench",
        "basert.bench.peers",
        "basert.bench.peers.fronts",
        "basert.bench.peers.fronts.server",
    }
    assert not {"msgspec", "falcon", "click"} & set(done)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Front(Counting(folder / "cancelled"), folder / "tokenizer.json", "counting").serve(int(sys.argv[2]))
