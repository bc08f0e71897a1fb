"""What is wrong with a batch's input: told line by line, before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.errors import ModelNotFound
from basert.jobs.lines import Lines
from basert.jobs.validate import MOST_ERRORS, Rules, validated
from basert.schema.batches import BatchError
from tests.jobs.making import CHAT, Json, jsonl, line


def check_model(name: str) -> None:
    if name not in ("tiny", "other"):
        raise ModelNotFound(f"The model {name!r} is not served here.", param="model")


def check(folder: Path, raw: bytes, most_lines: int = 100) -> tuple[str, list[BatchError]]:
    (folder / "input").write_bytes(raw)
    lines = Lines(folder / "input")
    try:
        return validated(lines, Rules(CHAT, most_lines, 1000, 20, check_model))
    finally:
        lines.close()


def test_lines_that_are_fine(tmp_path: Path) -> None:
    raw = b"\n" + jsonl([line("a"), line("b")]) + b"  \r\n" + json.dumps(line("c")).encode()
    assert check(tmp_path, raw) == ("tiny", [])


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (b"[" * 900, "invalid_request", None),
        (b"[]", "invalid_request", None),
        (b"x" * 1001, "line_too_long", None),
        ({"custom_id": None}, "invalid_request", "custom_id"),
        ({"custom_id": ""}, "invalid_request", "custom_id"),
        ({"custom_id": 7}, "invalid_request", "custom_id"),
        ({"custom_id": "first"}, "duplicate_custom_id", "custom_id"),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"url": "/v1/embeddings"}, "url_mismatch", "url"),
        ({"url": 1}, "invalid_request", "url"),
        ({"body": None}, "invalid_request", "body"),
        ({"body": []}, "invalid_request", "body"),
        ({"body": {}}, "invalid_request", "body.model"),
        ({"body": {"model": None}}, "invalid_request", "body.model"),
        ({"body": {"model": "none"}}, "model_not_found", "body.model"),
        ({"body": {"model": "other"}}, "model_mismatch", "body.model"),
        ({"body": {"model": "tiny", "stream": True}}, "invalid_request", "body.stream"),
        ({"body": {"model": "tiny", "x": json.loads("[" * 30 + "]" * 30)}}, "invalid_request", "body"),
    ],
)
def test_a_line_that_is_wrong(tmp_path: Path, wrong: Any, code: str, param: str | None) -> None:
    raw = wrong if isinstance(wrong, bytes) else json.dumps(line("second") | wrong).encode()
    _, errors = check(tmp_path, jsonl([line("first")]) + b"\n" + raw + b"\n" + jsonl([line("last")]))
    assert [(error.line, error.code, error.param) for error in errors] == [(3, code, param)]
    assert errors[0].message.endswith(".")


@pytest.mark.parametrize("field", ["custom_id", "method", "url", "body"])
def test_a_field_that_is_missing(tmp_path: Path, field: str) -> None:
    lacking = {name: value for name, value in line("a").items() if name != field}
    _, errors = check(tmp_path, jsonl([lacking]))
    assert [(error.code, error.param) for error in errors] == [("invalid_request", field)]


@pytest.mark.parametrize("raw", [b"", b"\n\n  \n"])
def test_a_file_without_requests(tmp_path: Path, raw: bytes) -> None:
    _, errors = check(tmp_path, raw)
    assert [(error.code, error.line) for error in errors] == [("empty_file", None)]


def test_too_many(tmp_path: Path) -> None:
    _, errors = check(tmp_path, jsonl(line(f"{i}") for i in range(5)), most_lines=4)
    assert [error.code for error in errors] == ["too_many_tasks"]
    assert "5 requests" in errors[0].message


def test_no_more_are_listed_than_anybody_reads(tmp_path: Path) -> None:
    _, errors = check(tmp_path, b"{\n" * 500, most_lines=1000)
    assert len(errors) == MOST_ERRORS


@given(
    st.lists(st.sampled_from([b"\n", b" \n", b'{"a":1}\n', b"x\n", b"\r\n", b"x" * 50 + b"\n"])),
    st.booleans(),
)
def test_lines_are_where_they_are(
    tmp_path_factory: pytest.TempPathFactory, some: list[bytes], cut: bool
) -> None:
    """As Python's own way to read lines finds them."""
    raw = b"".join(some)
    raw = raw[:-1] if cut else raw
    path = tmp_path_factory.mktemp("f") / "input"
    path.write_bytes(raw)
    lines = Lines(path)
    expected = [
        (number, text) for number, text in enumerate(raw.splitlines(keepends=True), 1) if text.strip()
    ]
    assert [(lines.number(i), lines.length(i)) for i in range(len(lines))] == [
        (number, len(text)) for number, text in expected
    ]
    lines.close()


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("basert.jobs.lines.PIECE", 7)
    told: list[Json] = [line("a"), line("b" * 50)]
    (tmp_path / "input").write_bytes(jsonl(told))
    lines = Lines(tmp_path / "input")
    assert [lines.read(i).custom_id for i in range(2)] == ["a", "b" * 50]
    lines.close()
