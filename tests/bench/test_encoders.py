"""A comparison of servers that encode, real but for the model: what is asked, noted and refused."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.bench.embedding import check, cosines
from basert.bench.engine import Bucket
from basert.bench.load import Outcome
from basert.bench.peers.encoding import TRIALS, Alone, Embed, Encoding, Inside
from basert.bench.peers.markdown import render
from basert.bench.peers.peer import Model, Peer, Setup
from basert.bench.peers.results import Comparison
from basert.bench.peers.rounds import Plan, Rounds
from basert.bench.peers.running import Entrant
from basert.bench.sentences import COUNT, Sentences, request
from basert.client import Client, RequestFailed
from basert.server_process import ServerProcess, free_port
from tests.bench import hashing
from tests.bench.conftest import comparison

ROOT = Path(__file__).parents[2]
SENTENCES = Sentences([f"this is text {number} of {number * number}" for number in range(512)], "here")
LOOP = Embed("4x8", "four clients", "texts_per_second", 4, 8)
ALONE = Alone("alone", "one", "latency_ms")
INSIDE = Inside("inside", "no HTTP", "texts_per_second")


class Exact(Peer):
    name = "exact"
    family = "encoder"
    recipe = "1"
    notes: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ("--metrics",)

    def versions(self, room: Path) -> dict[str, str]:
        return {}

    def command(self, setup: Setup, port: int) -> list[str]:
        return [sys.executable, "-m", "tests.bench.hashing", str(port), *self.flags]

    def environment(self, setup: Setup) -> Mapping[str, str]:
        return {"PYTHONPATH": str(ROOT)}


class Rough(Exact):
    name = "rough"
    flags = ("--steps", "3")


class Short(Exact):
    name = "short"
    flags = ("--short",)


async def compare(*peers: Peer) -> Comparison:
    model = Model("hashing", Path(), "0", "encoder", Path, Path)
    entrants = [Entrant(peer, Setup(Path(), Path(), model, 1, 4, 256)) for peer in peers]
    trials = [LOOP, ALONE, INSIDE]
    report = comparison(entrants, [*trials])
    discipline = Encoding(SENTENCES, hashing.embed([*SENTENCES.texts]).tobytes())
    await Rounds(Plan(trials, 2, 120), discipline, report, lambda done, total: None).run(entrants)
    return report


async def test_speed_stands_beside_closeness() -> None:
    report = await compare(Exact(), Rough())
    assert report.complete
    assert not report.failures
    assert not report.left_out
    exact, rough = (report.spread("4x8", name, "cosine_min") for name in ("exact", "rough"))
    assert exact is not None
    assert rough is not None
    assert exact.lowest > 0.999999
    assert 0.5 < rough.lowest < 0.99
    [row] = [line for line in render(report).splitlines() if line.startswith("| 4x8: four clients")]
    assert f", cos {exact.lowest:.5f} |" in row
    assert row.endswith(f"×], cos {rough.lowest:.5f} |")


async def test_what_the_runtime_took_is_noted() -> None:
    report = await compare(Exact(), Rough())
    counted, timed = (report.spread("alone", name, "session_ms") for name in ("exact", "rough"))
    for name in ("exact", "rough"):
        latency, inside = (report.spread("alone", name, metric) for metric in ("latency_ms", "inside_ms"))
        assert latency is not None
        assert inside is not None
        assert 0 < inside.median < latency.median
        assert report.spread("inside", name, "texts_per_second") is not None
    assert counted is not None
    assert timed is not None
    assert all(0 < sample < 1e3 * hashing.SECONDS for sample in timed.samples)


async def test_less_than_was_asked_is_a_failure() -> None:
    report = await compare(Short())
    assert report.left_out["short"].startswith("its first answers failed: it answered 0 vectors to 1 texts.")


async def test_buckets_are_read_and_subtracted() -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.hashing", str(port), "--metrics"]
    with ServerProcess(command, port=port, env={"PYTHONPATH": str(ROOT)}, ready_path="/v1/models") as server:
        async with Client(server.url) as client:
            before = await Bucket.read(client, "hashing")
            for texts in (["a b", "c"], ["d"]):
                await client.embed(request("hashing", texts))
            after = await Bucket.read(client, "hashing")
            assert await Bucket.read(client, "another") == []
    [bucket] = Bucket.since(before, after)
    assert (bucket.rows, bucket.tokens) == (8, 32)
    assert (bucket.runs, bucket.inputs, bucket.input_tokens) == (2, 3, 12)
    assert bucket.run_seconds == pytest.approx(2 * hashing.SECONDS)
    assert Bucket.since([], after) == after


@given(st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3).filter(any), min_size=1, max_size=6))
def test_cosines_do_not_see_length(rows: list[list[int]]) -> None:
    ours = np.array(rows, np.float32)
    answered = Outcome(0.0, vectors=[base64.b64encode(row.tobytes()).decode() for row in ours])
    same = cosines([answered], (3 * ours).tobytes())
    opposite = cosines([answered], np.concatenate([-ours, ours]).astype(np.float32).tobytes())
    assert same == pytest.approx([1] * len(rows))
    assert opposite == pytest.approx([-1] * len(rows))


def test_another_width_is_another_model() -> None:
    with pytest.raises(RequestFailed, match="its vectors have 1 numbers"):
        cosines([Outcome(0.0, vectors=["AACAPw=="] * 2)], b"\0\0\x80\x3f")


def test_an_error_is_a_failure() -> None:
    body = request("m", ["a"])
    check([Outcome(0.0, vectors=["AACAPw=="])], [body])
    with pytest.raises(RequestFailed, match="too long"):
        check([Outcome(0.0, error="too long")], [body])


def test_every_workload_fits_the_texts() -> None:
    for trial in TRIALS.values():
        if isinstance(trial, Embed):
            assert trial.inputs * trial.streams <= COUNT


def test_fronts_need_nothing_of_basert_but_themselves() -> None:
    code = "import sys, basert.bench.peers.fronts.embeddings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"msgspec", "falcon", "click"} & set(done.stdout.split())
