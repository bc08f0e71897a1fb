"""What the Makefile makes beside .venv for tests: other languages' and other people's packages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def made(stamp: str) -> Path:
    """The folder of a stamp, by its rule if it is out of date: `make test` has done so before."""
    env = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}  # an outer make's
    subprocess.run(["make", "--silent", "-C", str(ROOT), stamp], env=env, check=True)
    return (ROOT / stamp).parent
