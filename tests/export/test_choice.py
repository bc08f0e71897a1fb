"""What `auto` means, given speeds; and that speeds are measured through the engine's session."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from basert.errors import ExportError
from engines.sessions.instructions import integer_products
from export import choice
from export.choice import LARGEST, choose
from export.graph import decoder_from_checkpoint
from export.speed import Speed, measure_speeds
from tests.export.families import write_family


def fixed(speeds: Mapping[str, Speed], _: tuple[str, ...]) -> Mapping[str, Speed]:
    return speeds


def measured(w8a8: Speed, int4: Speed) -> Mapping[str, Speed]:
    return {"w8a8": w8a8, "int4": int4}


@pytest.fixture(autouse=True)
def feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "integer_products", lambda: "AMX")


def test_w8a8_is_taken_unless_int4_is_clearly_faster() -> None:
    even = Speed(10, 20, 300)
    for speed, order in (
        (Speed(9.5, 19, 290), ["w8a8", "int4", "fp32"]),
        (Speed(5, 25, 300), ["int4", "w8a8", "fp32"]),
        (Speed(5, 40, 900), ["w8a8", "int4", "fp32"]),
    ):
        found = choose("auto", 1, partial(fixed, measured(even, speed)))
        assert found.variants == order
        assert f"w8a8 10.0/20.0/300 ms, int4 {speed}" in found.reason


def test_the_reason_says_by_how_much() -> None:
    fast = choose("auto", 1, lambda _: measured(Speed(10, 10, 10), Speed(5, 5, 5)))
    assert "int4 is 2.00 times as fast on the whole" in fast.reason
    slow = choose("auto", 1, lambda _: measured(Speed(10, 10, 10), Speed(20, 20, 20)))
    assert "int4 is 2.00 times as slow on the whole" in slow.reason


def never(_: tuple[str, ...]) -> Mapping[str, Speed]:
    raise AssertionError("nothing is to be measured")


def test_what_is_asked_for_is_not_measured() -> None:
    assert choose("int4", 1, never) == choice.Choice(["int4"], "asked for")
    with pytest.raises(ExportError, match="no variant 'int3'; choose auto, fp32, w8a8, int4"):
        choose("int3", 1, never)


def test_large_models_and_plain_cpus_go_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    large = choose("auto", LARGEST + (1 << 30), never)
    assert large.variants[0] == "w8a8"
    assert large.reason.startswith("auto: by the table, since 7 GiB are too much")
    monkeypatch.setattr(choice, "integer_products", lambda: None)
    plain = choose("auto", 1, never)
    assert plain.variants == ["fp32"]
    assert "no fast 8-bit integer products" in plain.reason


def test_instructions_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu sse4_2 avx2 avx512_vnni\n")
    assert integer_products(cpuinfo) == "AVX-512 VNNI"
    cpuinfo.write_text("processor : 0\nflags : fpu sse4_2\n")
    assert integer_products(cpuinfo) is None


def test_speeds_are_of_every_graph_and_no_call_is_free(tmp_path: Path) -> None:
    decoder_from_checkpoint(write_family(tmp_path / "checkpoint", "llama3"), tmp_path / "fp32")
    shown: list[tuple[int, int]] = []
    found = measure_speeds(
        {"a": tmp_path / "fp32", "b": tmp_path / "fp32"}, lambda *seen: shown.append(seen), threads=1
    )
    assert list(found) == ["a", "b"]
    for speed in found.values():
        assert 0 < speed.decode_1 < speed.prefill
        assert np.isclose(speed.mean() ** 3, speed.decode_1 * speed.decode_8 * speed.prefill)
    assert shown[0] == (0, shown[0][1])
