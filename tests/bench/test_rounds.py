"""A comparison between real servers, start to report: who comes when, and what becomes of who fails."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from hypothesis import given
from hypothesis import strategies as st

from basert.bench.peers.basert_itself import Basert
from basert.bench.peers.generating import Generating
from basert.bench.peers.markdown import render
from basert.bench.peers.peer import Model, Peer
from basert.bench.peers.results import Comparison
from basert.bench.peers.rounds import Plan, Rounds, turned
from basert.bench.peers.trial import Discipline, Subject, Trial
from basert.bench.peers.trials import Arrivals, Load, SingleStream
from basert.client import RequestFailed
from tests.bench.conftest import Broken, Twin, comparison, entrant
from tests.tiny import write_testing_bundle

SMALL = Load("2x20", "two streams", "tokens_per_second", 2, 4, 20, 12)
PREFIX = Load("prefix", "shared", "first_token_ms", 2, 4, 40, 8, shared=30)
CHAT = SingleStream("chat", "questions", "tokens_per_second", "chat", 16, to_the_end=False)
BUSY = Arrivals("arrivals", "with prompts arriving", "gap_p99_ratio", 2, 20, 1900, 2, 64, 0.1)


@dataclass(frozen=True)
class Deadly(Trial[Subject]):
    """Kills the server that it measures."""

    async def measure(self, subject: Subject) -> dict[str, float]:
        os.kill(subject.pid, signal.SIGKILL)
        psutil.Process(subject.pid).wait()
        raise RequestFailed("the connection broke.")


async def compare(
    peers: list[Peer],
    trials: list[Trial[Any]],
    model: Model,
    discipline: Discipline[Any],
    *,
    repetitions: int = 2,
    seconds: float = 250,
) -> Comparison:
    entrants = [entrant(peer, model) for peer in peers]
    report = comparison(entrants, trials)
    steps: list[tuple[int, int]] = []
    plan = Plan(trials, repetitions, seconds)
    rounds = Rounds(plan, discipline, report, lambda done, total: steps.append((done, total)))
    await rounds.run(entrants)
    if report.complete:
        assert steps[-1][0] == steps[-1][1]
        assert steps == sorted(steps)
    return report


@given(st.integers(1, 6))
def test_everybody_is_first_last_and_between_equally_often(count: int) -> None:
    orders = [turned(range(count), by) for by in range(2 * count)]
    for place in range(count):
        assert Counter(order[place] for order in orders) == dict.fromkeys(range(count), 2)


def test_nobody_takes_no_turns() -> None:
    assert turned([], 3) == []


async def test_two_servers_in_alternation(model: Model, generating: Generating) -> None:
    trials: list[Trial[Any]] = [SMALL, PREFIX, CHAT, BUSY]
    report = await compare([Basert(), Twin()], trials, model, generating)
    assert report.complete
    assert not report.left_out
    assert not report.failures
    for number in range(2):
        turns = [one for one in report.samples if one.round == number]
        assert [one.at for one in turns] == sorted(one.at for one in turns)
        firsts = [one.server[0] for one in turns][::2]
        assert firsts == [["b", "b", "t", "t", "b"], ["t", "t", "t", "b", "b"]][number]
        assert {(one.server, one.workload) for one in turns} == {
            (server, trial) for server in ("basert", "twin") for trial in report.workloads
        }
    for one in report.samples:
        assert all(value > 0 for value in one.values.values())
        if one.workload != "start":
            assert set(one.idle_cpu) == {"basert", "twin"} - {one.server}
    assert msgspec.json.decode(msgspec.json.encode(report), type=Comparison) == report


async def test_the_page_says_it_all(model: Model, generating: Generating) -> None:
    report = await compare([Basert(), Twin(), Broken()], [SMALL], model, generating)
    page = render(report)
    ours, theirs = (report.spread("2x20", name, "tokens_per_second") for name in ("basert", "twin"))
    assert ours is not None
    assert theirs is not None
    assert len(ours.samples) == 2
    [row] = [line for line in page.splitlines() if line.startswith("| 2x20: two streams")]
    ratio = report.advantage("2x20", "basert", "twin", "tokens_per_second")
    assert f"| {ours.median:,.0f} ({ours.lowest:,.0f}–{ours.highest:,.0f}) |" in row
    assert f"| {theirs.median:,.0f} ({theirs.lowest:,.0f}–{theirs.highest:,.0f}) [{ratio:.2f}×] |" in row
    assert row.endswith("| – |")
    assert "`serve 'a b'`" in page
    assert "no tiles on this machine" in page
    assert report.machine.cpu in page


async def test_what_does_not_start_is_named_and_the_others_go_on(
    model: Model, generating: Generating
) -> None:
    report = await compare([Basert(), Broken()], [SMALL], model, generating)
    assert report.left_out == {"broken": "the server did not start: no tiles on this machine"}
    assert report.complete
    assert Counter(one.server for one in report.samples) == {"basert": 4}


async def test_what_dies_is_named_and_the_others_go_on(model: Model, generating: Generating) -> None:
    deadly = Deadly("deadly", "dies", "tokens_per_second")
    report = await compare([Twin()], [deadly, SMALL], model, generating)
    assert "it died during deadly" in report.left_out["twin"]
    assert [one.reason for one in report.failures] == ["the connection broke."]
    assert [one.workload for one in report.samples] == ["start"]
    assert report.complete


async def test_a_workload_it_cannot_do_costs_only_that(model: Model, generating: Generating) -> None:
    long = Load("long", "too long", "tokens_per_second", 1, 1, 4000, 8)
    report = await compare([Basert()], [long, SMALL], model, generating, repetitions=1)
    assert [(one.server, one.workload) for one in report.failures] == [("basert", "long")]
    assert [one.workload for one in report.samples] == ["start", "2x20"]
    assert f"basert, long, round 1: {report.failures[0].reason}" in render(report)


async def test_a_server_too_fast_to_see_its_gaps_is_measured_all_the_same(
    generating: Generating, tmp_path: Path
) -> None:
    bundle = write_testing_bundle(tmp_path, max_context=2048, slots=8)
    model = Model("tiny", bundle, "0", "decoder", Path, Path)
    report = await compare([Basert()], [SMALL], model, generating, repetitions=1)
    assert not report.failures
    assert report.spread("2x20", "basert", "tokens_per_second") is not None


async def test_its_time_is_bounded_and_it_leaves_nothing_behind(model: Model, generating: Generating) -> None:
    before = set(psutil.Process().children(recursive=True))
    endless = Load("endless", "no end", "tokens_per_second", 1, 1_000_000, 8, 8)
    report = await compare([Basert()], [endless], model, generating, seconds=8)
    assert not report.complete
    assert report.skipped == ["what was not measured within 8 s"]
    assert set(psutil.Process().children(recursive=True)) <= before
