"""Log lines: one format for what is logged, relayed and blurted out."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from basert import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, raising = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


def _objects(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_text_lines(file: Path) -> None:
    logs.setup("supervisor", "text", "info", logs.Output(file))
    logging.getLogger("any").info("loaded in %.1f s", 0.5)
    logging.getLogger("any").debug("not this")
    pattern = (
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}} INFO supervisor\[{os.getpid()}\] loaded in 0\.5 s\n"
    )
    assert re.fullmatch(pattern, file.read_text())


def test_an_exception_stays_in_its_line(file: Path) -> None:
    logs.setup("http", "json", "info", logs.Output(file))
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("any").exception("it failed")
    (line,) = _objects(file)
    assert "ValueError: boom" in str(line["exception"])


def test_a_childs_own_lines_pass_and_blurted_ones_are_wrapped(file: Path) -> None:
    output = logs.Output(file)
    logs.setup("supervisor", "json", "info", output)
    own = json.dumps({"time": "2026-11-22T00:00:00.000Z", "level": "info"}, separators=(",", ":"))
    assert output.relay("engine tiny", 42, own)
    assert not output.relay("engine tiny", 42, "Segmentation fault")
    passed, wrapped = _objects(file)
    assert passed["level"] == "info"
    expected = {"level": "warning", "process": "engine tiny", "pid": 42, "message": "Segmentation fault"}
    assert expected.items() <= wrapped.items()


def test_a_file_that_was_moved_away_is_made_again(file: Path, tmp_path: Path) -> None:
    output = logs.Output(file)
    logs.setup("supervisor", "text", "info", output)
    logging.info("before")
    file.rename(tmp_path / "old")
    logging.info("between")
    output.reopen()
    logging.info("after")
    assert [line.rpartition(" ")[2] for line in (tmp_path / "old").read_text().splitlines()] == [
        "before",
        "between",
    ]
    assert file.read_text().endswith("after\n")


def test_a_full_disk_is_left_for_another(file: Path) -> None:
    file.symlink_to("/dev/full")
    output = logs.Output(file)
    logs.setup("supervisor", "text", "info", output)
    logging.info("lost")
    assert output.relay("http", 42, "2026-11-22T00:00:00.000 INFO http[42] lost")
    file.unlink()
    output.reopen()
    logging.info("kept")
    assert file.read_text().endswith(" kept\n")
    assert "lost" not in file.read_text()
