"""Who is let in, and when: three quarters of the slots, suspects alone, nobody while an engine is away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from basert.jobs import gate as gates
from basert.jobs.gate import LINES_OF_ENCODERS, Gate


def model(slots: int = 4, encoder: Any = None) -> Any:
    info = SimpleNamespace(slots=slots) if slots else None
    return SimpleNamespace(info=info, state="ready", restarts=0, manifest=SimpleNamespace(encoder=encoder))


class Crowd:
    """Lines that want in, and stay until they are told to go."""

    def __init__(self, gate: Gate) -> None:
        self.inside: list[str] = []
        self._gate = gate
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str, suspect: bool = False) -> None:
        for name in names:
            self._leave[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._stay(name, suspect))
        await settle()

    async def go(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()

    async def _stay(self, name: str, suspect: bool) -> None:
        async with self._gate.open(suspect=suspect):
            self.inside.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "POLL_SECONDS", 0.0)


@pytest.mark.parametrize(("slots", "limit"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (32, 24), (0, 1)])
async def test_a_quarter_is_left_to_others(slots: int, limit: int) -> None:
    assert Gate(lambda: model(slots), None, 5).limit == limit
    assert Gate(lambda: model(slots), 7, 5).limit == 7
    assert Gate(lambda: model(1, encoder=object()), None, 5).limit == LINES_OF_ENCODERS
    assert Gate(lambda: None, None, 5).limit == 1


async def test_first_come_first_served() -> None:
    crowd = Crowd(Gate(lambda: None, 2, 5))
    await crowd.come("a", "b", "c", "d", "e")
    assert crowd.inside == ["a", "b"]
    await crowd.give_up("c")
    await crowd.go("b")
    assert crowd.inside == ["a", "d"]
    await crowd.give_up("a")
    assert crowd.inside == ["d", "e"]


async def test_who_leaves_as_its_turn_comes_gives_it_on() -> None:
    gate = Gate(lambda: None, 1, 5)
    crowd = Crowd(gate)
    await crowd.come("a", "b", "c")
    crowd._leave["a"].set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await crowd.give_up("b")
    assert crowd.inside == ["c"]


async def test_suspects_run_alone_and_before_others() -> None:
    crowd = Crowd(Gate(lambda: None, 3, 5))
    await crowd.come("a", "b")
    await crowd.come("suspect", "another", suspect=True)
    await crowd.come("c")
    assert crowd.inside == ["a", "b"]
    await crowd.go("a", "b")
    assert crowd.inside == ["suspect"]
    await crowd.go("suspect")
    assert crowd.inside == ["another"]
    await crowd.go("another")
    assert crowd.inside == ["c"]


async def test_nobody_enters_while_the_engine_is_away() -> None:
    served = model()
    gate = Gate(lambda: served, None, 100)
    crowd = Crowd(gate)
    await crowd.come("a")
    gate.note_death()  # before the supervisor tells of it
    gate.note_death()  # of the same engine, told by another line
    await crowd.go("a")
    await crowd.come("b")
    assert crowd.inside == []
    served.state = "restarting"
    await settle()
    assert crowd.inside == []
    served.state, served.restarts = "ready", 1
    await settle()
    assert crowd.inside == ["b"]
    assert gate._deaths == 1


async def test_a_model_that_dies_often_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """With five deaths allowed in quick succession, after the second; what follows the rest is not quick."""
    served, rests, loop = model(), [], asyncio.get_running_loop()
    real, passed = asyncio.sleep, 0.0

    async def noted(seconds: float) -> None:
        nonlocal passed
        if seconds:
            rests.append(seconds)
            passed += seconds
        await real(0)

    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    monkeypatch.setattr(asyncio, "sleep", noted)
    gate = Gate(lambda: served, None, 5)
    for deaths, rested in ((1, 0), (2, 1), (1, 1), (2, 2)):
        gate.note_death()
        served.restarts += 1
        await settle()
        assert (gate._deaths, len(rests)) == (deaths, rested)
    assert all(seconds > gates.QUIET_SECONDS for seconds in rests)


async def test_many_who_give_up_at_once() -> None:
    crowd = Crowd(Gate(lambda: None, 1, 5))
    await crowd.come("a", *map(str, range(20)))
    await crowd.come("suspect", suspect=True)
    for task in crowd._tasks.values():
        task.cancel()
    done = await asyncio.gather(*crowd._tasks.values(), return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in done)
    await crowd.come("b", "c")
    assert crowd.inside == ["b"]


async def test_a_suspect_that_gives_up_holds_nobody_up() -> None:
    crowd = Crowd(Gate(lambda: None, 2, 5))
    await crowd.come("a")
    await crowd.come("suspect", suspect=True)
    await crowd.come("b")
    await crowd.give_up("suspect")
    assert crowd.inside == ["a", "b"]
