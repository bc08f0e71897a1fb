"""The official openai-node client, unchanged, against a real server: tests/node, run by node --test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import KEY, magic_ids
from tests.serving import Server
from tests.tiny import SENTENCE

NODE = Path(__file__).parent.parent / "node"


@pytest.fixture(scope="module")
def node() -> str:
    """node itself, its packages installed."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node on this machine")
    if not (NODE / "node_modules" / "openai").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=NODE, check=True)
    return found


def test_openai_node(node: str, open_server: Server, busy_server: Server) -> None:
    env = {"BASERT_URL": open_server.url, "SENTENCE": SENTENCE, "BUSY_URL": busy_server.url, "BUSY_KEY": KEY}
    env["MAGIC_IDS"] = ",".join(map(str, magic_ids()))
    done = subprocess.run(
        [node, "--test", str(NODE)], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 8" in done.stdout, done.stdout
