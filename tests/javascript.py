"""Tests in JavaScript: the files of tests/node, run by node against a server of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest

from tests.makefile import made


def run_node_tests(file: str, tests: int, env: Mapping[str, str]) -> None:
    """All tests of a file pass, as many as there have to be. Skips where there is no node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    folder = made("tests/node/node_modules/.made").parent
    done = subprocess.run(
        [node, "--test", str(folder / file)], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"# pass {tests}\n" in done.stdout, done.stdout
