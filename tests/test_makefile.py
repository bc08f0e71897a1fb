"""The Makefile's targets, with a `basert` that only writes down how it was called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORDER = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
case "$*" in *--print-name*) echo its-name ;; esac
"""


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    basert = tmp_path / "basert"
    basert.write_text(RECORDER)
    basert.chmod(0o755)
    return tmp_path


def calls(bin_folder: Path, *arguments: str) -> list[str]:
    # -o: the environment counts as made
    command = ["make", "-s", "-C", str(ROOT), "-o", ".venv/.run", f"BIN={bin_folder}", *arguments]
    subprocess.run(
        command, check=True, env={"PATH": os.environ["PATH"]}
    )  # settings of an outer make are not ours
    return (bin_folder / "calls").read_text().splitlines()


def test_serve_exports_what_is_missing_and_serves_it_by_its_name(bin_folder: Path) -> None:
    assert calls(bin_folder, "serve", "MODEL=hf:org/model", "VARIANT=int4", "ARGS=--workers 2") == [
        "export hf:org/model --print-name",
        "export hf:org/model --if-missing --variant int4",
        "serve its-name --port 8080 --workers 2",
    ]


def test_a_name_of_ones_own(bin_folder: Path) -> None:
    assert calls(bin_folder, "bench", "MODEL=./a folder", "NAME=mine") == [
        "export ./a folder --name mine --print-name",
        "export ./a folder --name mine --if-missing --variant auto",
        "bench its-name",
    ]


def test_export(bin_folder: Path) -> None:
    [call] = calls(bin_folder, "export", "MODEL=gguf:m.gguf", "NAME=mine", "ARGS=--force")
    assert call == "export gguf:m.gguf --name mine --variant auto --force"


def test_a_failed_export_serves_nothing(bin_folder: Path) -> None:
    with (bin_folder / "basert").open("a") as script:
        script.write('case "$*" in *--if-missing*) exit 1 ;; esac\n')
    with pytest.raises(subprocess.CalledProcessError):
        calls(bin_folder, "serve")
    assert (bin_folder / "calls").read_text().count("\n") == 2


def test_bench_peers_exports_what_it_measures(bin_folder: Path) -> None:
    assert calls(bin_folder, "bench-peers", "ARGS=--peers llama.cpp")[-1] == (
        "bench-peers its-name --peers llama.cpp"
    )


def test_every_target_has_one_recipe() -> None:
    done = subprocess.run(["make", "-n", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert not done.stderr
