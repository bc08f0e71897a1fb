"""Buckets that fit what a server saw: the least padding there is, and a list that an export takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.buckets import Seen, padding, shapes, suggest
from basert.cli.buckets import read_lengths
from basert.errors import ConfigError
from export.encoders.buckets import read_buckets
from tests.cli.conftest import Run
from tests.serving import Server
from tests.tiny import write_testing_bundle, write_testing_encoder

SEEN = Seen([8, 16, 64], [100, 10, 1])


@given(st.lists(st.floats(0, 1000, allow_subnormal=False), min_size=4, max_size=4), st.integers(1, 4))
def test_no_other_lengths_pad_less(counts: list[float], lengths: int) -> None:
    seen = Seen([8, 24, 40, 64], counts)
    found = suggest(seen, lengths, 64)
    assert found[-1] == 64
    assert len(found) <= lengths
    others = [
        padding(seen, [*chosen, 64])
        for count in range(lengths)
        for chosen in combinations(range(8, 64, 8), count)
    ]
    assert padding(seen, found) <= min(others) + 1e-9


def test_where_inputs_are_there_are_lengths() -> None:
    assert suggest(SEEN, 2, 256) == [16, 256]
    assert suggest(SEEN, 3, 256) == [8, 16, 256]
    assert suggest(Seen([128, 136], [0, 50]), 2, 8192)[0] <= 192


def test_what_is_suggested_is_taken_by_an_export() -> None:
    listed = ",".join(f"{rows}x{tokens}" for rows, tokens in shapes(suggest(SEEN, 4, 256)))
    assert read_buckets(listed, 256) == shapes(suggest(SEEN, 4, 256))


def test_a_metric_is_told_apart_by_its_model() -> None:
    lines = [
        f'basert_engine_input_tokens_bucket{{le="{le}",model="{model}",replica="{replica}"}} {count}'
        for replica in (0, 1)
        for model, counts in (("a", (1, 3, 3)), ("b", (5, 5, 9)))
        for le, count in zip(("8.0", "16.0", "+Inf"), counts, strict=True)
    ]
    assert read_lengths("\n".join(lines), "a") == Seen([8, 16], [2, 4])


@pytest.mark.parametrize("text", ["", "{", "{}", '{"x": 1}', '{"8": 0}', "[1]"])
def test_no_lengths_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        read_lengths(text, "a")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("encoders")
    write_testing_bundle(store, name="chat")
    return write_testing_encoder(store, name="encoder")


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[Server]:
    with Server([bundle]) as running:
        yield running


def test_a_server_is_asked(served: Server, bundle: Path, basert: Run) -> None:
    for words in (1, 1, 1, 6):
        body = {"model": "encoder", "input": "hello " * words}
        assert httpx.post(f"{served.url}/v1/embeddings", json=body).status_code == 200
    done = basert("buckets", "suggest", str(bundle), "--url", served.url, "--lengths", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("x64")
    assert "4 inputs were seen" in done.stderr


def test_a_file_is_read(basert: Run, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "lengths.json"
    file.write_text(json.dumps({"5": 10, "20": 3}))
    done = basert("buckets", "suggest", str(bundle), "--histogram", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1x8,")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chat", "--url", "http://127.0.0.1:9"], "no encoder"),
        (["encoder"], "lengths come from: --url"),
        (["nothing", "--url", "x"], "no bundle 'nothing'"),
    ],
)
def test_what_cannot_be_suggested_says_why(
    basert: Run, bundle: Path, arguments: list[str], says: str
) -> None:
    done = basert("buckets", "suggest", *arguments, BASERT_HOME=str(bundle.parent))
    assert done.returncode != 0
    assert says in done.stderr
