"""Which graph is the fastest: measured once, kept for this host, and no reason not to start."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from basert.errors import BundleError
from basert.manifest import Graph, read_manifest
from engines.buckets import Bucket
from engines.choosing import CHOICE, Time, fastest, samples, seconds_waited
from engines.compiled import FOLDER, Compiled
from tests.tiny import write_testing_encoder

SHAPES = [(1, 8), (4, 8), (1, 32), (2, 32), (1, 64)]
GRAPHS = [Graph("encoder", target, "encoder.onnx", [], [], shapes=SHAPES) for target in ("one", "two")]


@pytest.fixture
def compiled(tmp_path: Path) -> Compiled:
    bundle = write_testing_encoder(tmp_path)
    return Compiled(bundle, read_manifest(bundle), GRAPHS[0])


class Host:
    """Opens graphs whose runs take so many seconds a token; a missing one does not start."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.opened: Counter[str] = Counter()

    def __call__(self, graph: Graph) -> Time:
        self.opened[graph.target] += 1
        if graph.target not in self.seconds:
            raise BundleError(f"{graph.target} does not start")
        return lambda bucket: self.seconds[graph.target] * bucket.size


@pytest.mark.parametrize("quicker", ["one", "two"])
def test_the_faster_one_is_taken_and_not_measured_again(compiled: Compiled, quicker: str) -> None:
    host = Host(**{"one": 2.0, "two": 2.0, quicker: 1.0})
    for _ in range(2):
        assert fastest(GRAPHS, host, compiled, waited=idle).target == quicker
    assert host.opened == {"one": 1, "two": 1}


def idle() -> float:
    """Seconds that threads waited for a CPU."""
    return 0.0


def test_what_is_measured_while_others_work_is_measured_again(compiled: Compiled) -> None:
    waits = itertools.count()
    busy = Host(one=1.0, two=2.0)
    assert fastest(GRAPHS, busy, compiled, waited=lambda: float(next(waits))).target == "one"
    assert fastest(GRAPHS, Host(one=2.0, two=1.0), compiled, waited=idle).target == "two"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
def test_waiting_for_a_cpu_is_counted() -> None:
    [one, *_] = cpus = sorted(os.sched_getaffinity(0))
    before = seconds_waited()
    os.sched_setaffinity(0, {one})  # of this thread, and of those that it starts
    try:
        rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        spin(2.0)
    finally:
        os.sched_setaffinity(0, cpus)
        rival.kill()
        rival.wait()
    assert seconds_waited() > before


def spin(seconds: float) -> None:
    """Of this process' own CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_other_facts_are_measured_anew(compiled: Compiled) -> None:
    assert fastest(GRAPHS, Host(one=1.0, two=2.0), compiled, waited=idle, threads="1").target == "one"
    assert fastest(GRAPHS, Host(one=2.0, two=1.0), compiled, waited=idle, threads="2").target == "two"


def test_what_is_kept_and_damaged_is_measured_anew(compiled: Compiled, tmp_path: Path) -> None:
    fastest(GRAPHS, Host(one=1.0, two=2.0), compiled, waited=idle)
    [kept] = tmp_path.glob(f"*/{FOLDER}/*/{CHOICE}")
    kept.write_bytes(b"x" * kept.stat().st_size)
    assert fastest(GRAPHS, Host(one=2.0, two=1.0), compiled).target == "two"


def test_one_that_does_not_start_is_passed_over(compiled: Compiled, caplog: pytest.LogCaptureFixture) -> None:
    assert fastest(GRAPHS, Host(two=1.0), compiled).target == "two"
    assert "one does not start" in caplog.text


def test_none_that_starts_is_an_error(compiled: Compiled) -> None:
    with pytest.raises(BundleError, match="does not start"):
        fastest(GRAPHS, Host(), compiled)


def test_short_and_long_and_full_runs_are_timed() -> None:
    chosen = samples([Bucket(*shape) for shape in SHAPES])
    assert chosen[0].rows == chosen[1].rows == 1
    assert chosen[0].tokens < chosen[1].tokens
    assert chosen[2].rows > 1
    assert samples([Bucket(1, 8)]) == [Bucket(1, 8)]
