"""Shell completion: the script of each shell, and what it offers."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_basert(basert: Run, shell: str) -> None:
    done = basert("completion", shell)
    assert done.returncode == 0
    assert f"_BASERT_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_bash_takes_the_script(basert: Run) -> None:
    script = basert("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [("basert ch", ["chat"]), ("basert chat t", ["tiny"]), ("basert complete ", ["slow", "tiny"])],
)
def test_commands_and_bundles_are_offered(basert: Run, words: str, offered: list[str]) -> None:
    asked = {"_BASERT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = basert(**asked)
    assert [line.removeprefix("plain,") for line in done.stdout.split()] == offered
