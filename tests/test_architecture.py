"""The architecture as documented and as it is: each file has its line, no runtime creeps into the server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIMES = {"torch", "onnxruntime", "transformers", "onnx", "tensorrt"}


def test_every_file_has_its_line() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"^\| `([^`]+\.py)` \|", page, re.MULTILINE))
    there = {
        str(path.relative_to(ROOT))
        for room in ("basert", "engines", "export")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py" or path.parent.name == "sessions"
    }
    assert named == there


def test_the_server_loads_no_model_runtime() -> None:
    code = "import sys, basert.http.worker, basert.supervisor.run, basert.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not RUNTIMES & set(done.stdout.split())
    assert "numpy" not in done.stdout.split()
