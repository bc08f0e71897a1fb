"""list, inspect, verify and remove, on testing bundles and as their users run them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from basert.manifest import GOLDEN, MANIFEST, TOKENIZER, File, read_manifest, write_json
from tests.export.conftest import Run
from tests.serving import Server
from tests.tiny import write_testing_bundle


@pytest.fixture
def bundle(home: Path) -> Path:
    return write_testing_bundle(home / "store")


def sentence(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """What a command that failed said: one line, and no traceback."""
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


class TestList:
    def test_table(self, bundle: Path, basert: Run) -> None:
        head, row = basert("list").stdout.splitlines()
        assert head.split() == ["NAME", "VARIANT", "FAMILY", "SIZE", "CONTEXT", "AGE"]
        assert row.startswith("tiny  fp32     decoder (Testing)")

    def test_json(self, bundle: Path, basert: Run) -> None:
        [entry] = json.loads(basert("list", "--json").stdout)
        assert (entry["name"], entry["path"], entry["max_context"]) == ("tiny", str(bundle), 256)

    def test_empty_store(self, basert: Run) -> None:
        assert "has no bundles yet" in basert("list").stderr
        assert json.loads(basert("list", "--json").stdout) == []

    def test_damaged_bundle_does_not_hide_the_others(self, bundle: Path, home: Path, basert: Run) -> None:
        (write_testing_bundle(home / "store", name="broken") / MANIFEST).write_text("{")
        done = basert("list")
        rows = done.stdout.splitlines()[1:]
        assert rows[0] == "broken  unusable"
        assert rows[1].startswith("tiny ")
        assert "broken/manifest.json is damaged" in done.stderr


class TestInspect:
    def test_people(self, bundle: Path, basert: Run) -> None:
        shown = basert("inspect", "tiny").stdout
        for words in ("fp32 (asked for)", "256 tokens, 4 slots", "has a template", "[rows, 301]", TOKENIZER):
            assert words in shown

    def test_json_is_the_manifest(self, bundle: Path, basert: Run) -> None:
        shown = json.loads(basert("inspect", "tiny", "--json").stdout)
        assert shown["digest"] == hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
        assert shown["graphs"] == msgspec.to_builtins(read_manifest(bundle).graphs)

    def test_close_names(self, bundle: Path, basert: Run) -> None:
        assert "did you mean tiny?" in sentence(basert("inspect", "tinny"))


class TestVerify:
    def test_whole(self, bundle: Path, basert: Run) -> None:
        done = basert("verify", "tiny")
        assert done.returncode == 0, done.stderr
        assert "golden outputs on TestingExecutionProvider" in done.stdout

    def test_altered(self, bundle: Path, basert: Run) -> None:
        path = bundle / TOKENIZER
        path.write_bytes(path.read_bytes().replace(b"version", b"versiom", 1))
        assert f"{path} was altered" in sentence(basert("verify", "tiny"))

    def test_truncated(self, bundle: Path, basert: Run) -> None:
        path = bundle / TOKENIZER
        path.write_bytes(path.read_bytes()[:-10])
        assert f"{path} has " in sentence(basert("verify", "tiny"))

    def test_missing(self, bundle: Path, basert: Run) -> None:
        (bundle / TOKENIZER).unlink()
        assert f"{bundle / TOKENIZER} is missing" in sentence(basert("verify", "tiny"))

    def test_foreign_file(self, bundle: Path, basert: Run) -> None:
        (bundle / "graphs" / "extra.onnx").write_text("")
        assert "extra.onnx is not part of the bundle" in sentence(basert("verify", "tiny"))

    def test_drifted(self, bundle: Path, basert: Run) -> None:
        """Hashes that agree, and an engine that does not."""
        golden = json.loads((bundle / GOLDEN).read_bytes())
        golden["cases"][0]["logits"][0] += 1
        (bundle / GOLDEN).write_text(json.dumps(golden))
        manifest = read_manifest(bundle)
        files = [_file(bundle, file.path) for file in manifest.files]
        write_json(bundle / MANIFEST, msgspec.structs.replace(manifest, files=files))
        assert "golden case 0" in sentence(basert("verify", "tiny"))

    def test_engine_that_cannot_even_report(
        self, bundle: Path, basert: Run, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
        monkeypatch.chdir(home)
        (home / "engines.py").write_text("raise SystemExit('no such processor')")
        assert "no such processor" in sentence(basert("verify", "tiny"))


def _file(bundle: Path, path: str) -> File:
    content = (bundle / path).read_bytes()
    return File(path, hashlib.sha256(content).hexdigest(), len(content))


class TestRemove:
    def test_yes(self, bundle: Path, basert: Run) -> None:
        done = basert("remove", "tiny", "--yes")
        assert done.stdout.startswith("removed tiny (")
        assert list(bundle.parent.iterdir()) == []

    def test_without_terminal_it_wants_yes(self, bundle: Path, basert: Run) -> None:
        assert "--yes" in sentence(basert("remove", "tiny"), status=2)
        assert (bundle / MANIFEST).is_file()

    @pytest.mark.parametrize(("answer", "there"), [(b"n\n", True), (b"y\n", False)])
    def test_asks_on_a_terminal(self, bundle: Path, answer: bytes, there: bool) -> None:
        ours, terminal = os.openpty()
        os.write(ours, answer)
        command = [sys.executable, "-m", "basert", "remove", "tiny"]
        done = subprocess.run(command, stdin=terminal, capture_output=True, text=True)
        assert "Remove " in done.stdout + done.stderr
        assert bundle.exists() is there

    def test_refused_while_served(self, bundle: Path, basert: Run) -> None:
        with Server([bundle]):
            assert "tiny is being served" in sentence(basert("remove", "tiny", "--yes"))
        assert basert("remove", "tiny", "--yes").returncode == 0

    def test_only_names_of_the_store(self, bundle: Path, basert: Run) -> None:
        assert "no name for a bundle" in sentence(basert("remove", str(bundle), "--yes"), status=2)
        assert "did you mean tiny?" in sentence(basert("remove", "tinny", "--yes"))
